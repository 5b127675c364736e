//! The stable hash: what two machines with the same file must agree on.
//!
//! XXH3-64 (<https://github.com/Cyan4973/xxHash>) over canonical bytes: an address after masking,
//! 4 or 16 bytes, then the port in network order if it counts. Never ahash or `std::hash` here:
//! both may change between versions, and every client would move. The golden vectors below are a
//! promise to running installations and may never change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twox_hash::XxHash3_64;

/// Prefix lengths by which addresses are grouped into one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Leading bits of an IPv4 address that count: 0 to 32.
    pub v4: u8,
    /// Leading bits of an IPv6 address that count: 0 to 128.
    pub v6: u8,
}

impl Prefix {
    /// Every bit counts: each address is a client of its own.
    pub const WHOLE: Self = Self { v4: 32, v6: 128 };

    /// Leading bits of this address that count.
    #[must_use]
    pub fn bits_of(self, ip: IpAddr) -> u8 {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Clears the bits of `addr` behind the prefix; an IPv4-mapped IPv6 address is IPv4 first.
///
/// A prefix longer than the address keeps all of it.
#[must_use]
pub fn mask(addr: IpAddr, prefix: Prefix) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => {
            let host_bits = 32_u32.saturating_sub(u32::from(prefix.v4));
            let kept = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & kept))
        }
        IpAddr::V6(v6) => {
            let host_bits = 128_u32.saturating_sub(u32::from(prefix.v6));
            let kept = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & kept))
        }
    }
}

/// The stable key of a client: its masked address, and its port where two ports are two clients.
#[must_use]
pub fn client_key(addr: IpAddr, port: Option<u16>, prefix: Prefix, seed: u64) -> u64 {
    let mut bytes = [0_u8; 18];
    let address_len = match mask(addr, prefix) {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            bytes[..16].copy_from_slice(&v6.octets());
            16
        }
    };
    let Some(port) = port else {
        return XxHash3_64::oneshot_with_seed(seed, &bytes[..address_len]);
    };
    let len = address_len + 2;
    bytes[address_len..len].copy_from_slice(&port.to_be_bytes());
    XxHash3_64::oneshot_with_seed(seed, &bytes[..len])
}

/// The stable key of every client without an address that counts (on a Unix socket, or where a pool
/// hashes nothing of its clients): one and the same.
#[must_use]
pub fn key_without_address(seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, &[])
}

/// The stable key of a name: a backend's identity, a server name, a header's value.
#[must_use]
pub fn name_key(name: &str, seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, name.as_bytes())
}

/// The stable key of what a client asks for: the value of a header or a cookie.
#[must_use]
pub fn value_key(value: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, value)
}

/// A further key derived from `key`; attempt 0 is the key itself.
#[must_use]
pub fn attempt_key(key: u64, attempt: u32, seed: u64) -> u64 {
    if attempt == 0 {
        return key;
    }
    let mut bytes = [0_u8; 12];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    bytes[8..].copy_from_slice(&attempt.to_be_bytes());
    XxHash3_64::oneshot_with_seed(seed, &bytes)
}

/// Maps a uniform 64-bit number to `0..below` by one multiplication (Lemire's fastrange).
#[must_use]
#[inline]
pub(crate) fn scale(uniform: u64, below: u64) -> u64 {
    ((u128::from(uniform) * u128::from(below)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // If this fails, the library no longer computes XXH3-64 and every client moves.
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn golden_vectors() {
        // If this fails, nodes of different versions disagree: these literals may never change.
        let whole = Prefix::WHOLE;
        let golden = [
            (client_key(ip("192.0.2.1"), None, whole, 0), GOLDEN[0]),
            (client_key(ip("192.0.2.1"), None, whole, 42), GOLDEN[1]),
            (client_key(ip("192.0.2.1"), Some(443), whole, 0), GOLDEN[2]),
            (client_key(ip("2001:db8::1"), None, whole, 0), GOLDEN[3]),
            (client_key(ip("2001:db8::1"), Some(443), whole, 0), GOLDEN[4]),
            (attempt_key(0x0123_4567_89ab_cdef, 1, 0), GOLDEN[5]),
            (attempt_key(0x0123_4567_89ab_cdef, 2, 42), GOLDEN[6]),
            (name_key("10.0.0.11:5432", 0), GOLDEN[7]),
            (key_without_address(0), GOLDEN[8]),
        ];
        for (index, (computed, promised)) in golden.into_iter().enumerate() {
            assert_eq!(computed, promised, "vector {index}: {computed:#018x}");
        }
    }

    const GOLDEN: [u64; 9] = [
        0x2c1c_901e_ed9a_dc4a,
        0x168c_d930_75a8_6c8d,
        0x6216_25e0_be31_76a0,
        0x275c_8fa5_8c2d_19a0,
        0x9c6b_73f4_5f12_2ec8,
        0xfcd2_77b6_dd87_2dda,
        0xe853_ea96_b430_5fb1,
        0x2c28_d4f1_e866_b49d,
        0x2d06_8005_38d3_94c2,
    ];

    #[test]
    fn masking_groups_by_prefix() {
        // If this fails, one client is counted as many, or many as one.
        let prefix = Prefix { v4: 24, v6: 64 };
        assert_eq!(mask(ip("192.0.2.77"), prefix), ip("192.0.2.0"));
        assert_eq!(mask(ip("2001:db8:0:1:2:3:4:5"), prefix), ip("2001:db8:0:1::"));
        assert_eq!(mask(ip("::ffff:192.0.2.77"), prefix), ip("192.0.2.0"));
        let nothing = Prefix { v4: 0, v6: 0 };
        assert_eq!(mask(ip("192.0.2.77"), nothing), ip("0.0.0.0"));
        assert_eq!(mask(ip("2001:db8::1"), nothing), ip("::"));
    }

    #[test]
    fn attempt_zero_is_the_key_itself() {
        // If this fails, a client's first choice no longer follows from its key.
        assert_eq!(attempt_key(7, 0, 99), 7);
    }

    proptest! {
        #[test]
        fn bits_behind_the_prefix_do_not_matter(addr: u128, noise: u128, bits in 0_u8..=128) {
            // If this fails, a client that changes its host bits escapes its group.
            let prefix = Prefix { v4: 32, v6: bits };
            let low = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            let one = Ipv6Addr::from_bits(addr);
            let two = Ipv6Addr::from_bits((addr & !low) | (noise & low));
            prop_assume!(one.to_ipv4_mapped().is_none() && two.to_ipv4_mapped().is_none());
            prop_assert_eq!(
                client_key(one.into(), None, prefix, 1),
                client_key(two.into(), None, prefix, 1)
            );
        }

        #[test]
        fn scale_stays_below(uniform: u64, below in 1_u64..) {
            // If this fails, a table is read out of bounds.
            prop_assert!(scale(uniform, below) < below);
        }
    }
}
