//! How messages count: one session, two sessions; and how they show a client.

use std::net::IpAddr;

/// A number with its noun in the singular or in the plural with `s`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// An address with the leading bits by which it counts: as a network, unless all of them do.
pub(crate) fn shown_network(ip: IpAddr, bits: u8) -> String {
    let all = if ip.is_ipv4() { 32 } else { 128 };
    if bits < all { format!("{ip}/{bits}") } else { ip.to_string() }
}

/// What a pool does whose probes are not believed.
pub(crate) fn too_few_healthy(healthy: u64, all: u64) -> String {
    let trying = if all == 1 { "trying it anyway" } else { "trying all of them" };
    format!("{healthy} of {} healthy, {trying}", count(all, "backend"))
}

/// Whether colour is wanted where there is a terminal: the convention of no-color.org.
#[must_use]
pub fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, messages speak of "1 sessions" and of "all" of a single backend.
    #[test]
    fn one_is_not_many() {
        assert_eq!(
            (count(1, "session"), count(0, "session")),
            ("1 session".into(), "0 sessions".into())
        );
        assert_eq!(too_few_healthy(0, 1), "0 of 1 backend healthy, trying it anyway");
        assert_eq!(too_few_healthy(1, 3), "1 of 3 backends healthy, trying all of them");
    }
}
