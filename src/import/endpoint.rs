//! Addresses: where clients come to, and where backends are.

use std::net::{IpAddr, SocketAddr};

/// Longest path of a Unix socket: `sun_path` of unix(7) without its end.
const PATH_BYTES_MAX: usize = 107;
/// Most ports of a range.
const RANGE_PORTS_MAX: u16 = 16_384;

/// An address as evenkeel writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// One port, or all from the first to the last.
    Ports { ip: IpAddr, first: u16, last: u16 },
    /// A host, at the port to which the client came.
    Host(IpAddr),
    /// The path of a socket.
    Unix(String),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ports { ip, first, last } => {
                write!(f, "{}", SocketAddr::new(*ip, *first))?;
                if last > first { write!(f, "-{last}") } else { Ok(()) }
            }
            Self::Host(ip) => write!(f, "{ip}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl Endpoint {
    /// Ports of an address, written `80` or `5000-5099`.
    pub(super) fn ports(ip: IpAddr, text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no port");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: u16 = first.parse().map_err(|_| wrong())?;
        let last: u16 = last.parse().map_err(|_| wrong())?;
        if first == 0 || last < first {
            return Err(wrong());
        }
        if last - first >= RANGE_PORTS_MAX {
            return Err(format!("a range has at most {RANGE_PORTS_MAX} ports"));
        }
        Ok(Self::Ports { ip, first, last })
    }

    /// The path of a socket.
    pub(super) fn unix(path: &str) -> Result<Self, String> {
        let is_plain = path.starts_with('/')
            && !path.chars().any(char::is_control)
            && !matches!(path.rsplit('/').next(), None | Some("" | "." | ".."));
        if !is_plain {
            return Err(format!("`{path}` is no absolute path of a socket"));
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(format!("the path is longer than {PATH_BYTES_MAX} bytes"));
        }
        Ok(Self::Unix(path.to_owned()))
    }

    /// Whether a backend can be there.
    pub(super) fn can_be_connected(&self) -> bool {
        match self {
            Self::Ports { ip, first, last } => {
                first == last && !ip.is_unspecified() && !is_odd(*ip)
            }
            Self::Host(ip) => !ip.is_unspecified() && !is_odd(*ip),
            Self::Unix(_) => true,
        }
    }

    /// Whether no socket can listen there as long as one listens at `other`.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Ports { ip, first, last },
                Self::Ports { ip: their_ip, first: their_first, last: their_last },
            ) => {
                let is_one_family = ip.is_ipv4() == their_ip.is_ipv4();
                let shares_ip = ip == their_ip || ip.is_unspecified() || their_ip.is_unspecified();
                is_one_family && shares_ip && first <= their_last && their_first <= last
            }
            (Self::Unix(path), Self::Unix(theirs)) => segments(path).eq(segments(theirs)),
            _ => false,
        }
    }

    /// Whether a connection to `self` of a process that listens at `bind` comes back to it.
    pub(super) fn comes_back_to(&self, bind: &Self) -> bool {
        match (self, bind) {
            (Self::Ports { ip, .. }, Self::Ports { ip: listened, .. }) => {
                let is_here = ip == listened || (ip.is_loopback() && listened.is_unspecified());
                is_here && self.excludes(bind)
            }
            (Self::Host(ip), Self::Ports { ip: listened, .. }) => {
                ip == listened || (ip.is_loopback() && listened.is_unspecified())
            }
            _ => self.excludes(bind),
        }
    }
}

/// The names in a path, however many slashes are between them.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

/// Addresses to which no TCP connection can be made, or only with an interface.
fn is_odd(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local(),
    }
}

/// An IP address, with or without the brackets of IPv6.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}
