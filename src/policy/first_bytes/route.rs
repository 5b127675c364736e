//! Which route of a listener a connection takes: the first that matches.
//!
//! Some routes look at the client alone, some at its TLS hello. A hello is waited for only when the
//! answer depends on it.

use std::net::IpAddr;

use super::client_hello::ClientHello;
use crate::policy::admit::access::NetSet;

/// Server names: exact ones, and `*.` with every depth below it.
#[derive(Debug, Clone, Default)]
pub struct Names {
    exact: Vec<Box<str>>,
    /// With the dot in front.
    below: Vec<Box<str>>,
}

impl Names {
    /// Names in any case; a `*.` in front stands for one label or more.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        for name in names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some(below) => set.below.push(below.into()),
                None => set.exact.push(name.into()),
            }
        }
        set
    }

    /// Whether `name`, in lower case, is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let is_below = |end: &str| name.len() > end.len() && name.ends_with(end);
        self.exact.iter().any(|exact| **exact == *name)
            || self.below.iter().any(|end| is_below(end))
    }
}

/// One route. What is `None` is not asked for; all that is asked for has to match.
#[derive(Debug, Clone)]
pub struct Route<T> {
    /// The server's name in the TLS hello.
    pub names: Option<Names>,
    /// One of these is among the protocols that the hello offers.
    pub protocols: Option<Vec<Box<[u8]>>>,
    /// Whether it begins with a TLS hello, named or not.
    pub is_tls: Option<bool>,
    /// Networks of the client.
    pub clients: Option<NetSet>,
    /// Where it leads.
    pub target: T,
}

/// What is known of what the client says.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// Not yet whether it speaks TLS, or not all of its hello.
    Nothing,
    /// It does not speak TLS, or says no more.
    NoHello,
    /// All of its hello.
    Hello(&'a ClientHello),
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<T> {
    /// Along this route, which is the one with this index.
    Taken(T, usize),
    /// No route matches.
    Default,
    /// That depends on the hello.
    NeedsHello,
}

/// The first route that matches. A client without an address (on a Unix socket) is in no network.
pub fn choose<T: Copy>(routes: &[Route<T>], client: Option<IpAddr>, known: Known<'_>) -> Choice<T> {
    let is_in = |clients: &NetSet| client.is_some_and(|client| clients.contains(client));
    for (number, route) in routes.iter().enumerate() {
        let taken = Choice::Taken(route.target, number);
        if route.clients.as_ref().is_some_and(|clients| !is_in(clients)) {
            continue;
        }
        if route.names.is_none() && route.protocols.is_none() && route.is_tls.is_none() {
            return taken;
        }
        match known {
            Known::Nothing => return Choice::NeedsHello,
            Known::NoHello if route.is_tls == Some(false) => return taken,
            Known::NoHello => {}
            Known::Hello(hello) if matches(route, hello) => return taken,
            Known::Hello(_) => {}
        }
    }
    Choice::Default
}

fn matches<T>(route: &Route<T>, hello: &ClientHello) -> bool {
    let is_named =
        |names: &Names| hello.server_name.as_deref().is_some_and(|name| names.contains(name));
    let is_offered =
        |wanted: &Vec<Box<[u8]>>| hello.protocols.iter().any(|offered| wanted.contains(offered));
    route.is_tls != Some(false)
        && route.names.as_ref().is_none_or(is_named)
        && route.protocols.as_ref().is_none_or(is_offered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(name: Option<&str>, protocols: &[&str]) -> ClientHello {
        ClientHello {
            server_name: name.map(str::to_owned),
            protocols: protocols.iter().map(|name| Box::from(name.as_bytes())).collect(),
        }
    }

    fn route(names: &[&str], protocols: &[&str], clients: &[&str], target: u8) -> Route<u8> {
        let nets: Vec<_> = clients.iter().map(|net| net.parse().unwrap()).collect();
        let offered = protocols.iter().map(|name| Box::from(name.as_bytes())).collect();
        Route {
            names: (!names.is_empty()).then(|| Names::new(names.iter().copied())),
            protocols: (!protocols.is_empty()).then_some(offered),
            is_tls: None,
            clients: (!clients.is_empty()).then(|| NetSet::new(&nets)),
            target,
        }
    }

    fn client() -> Option<IpAddr> {
        Some("10.1.2.3".parse().unwrap())
    }

    #[test]
    fn a_wildcard_is_every_depth_below_and_not_the_name_itself() {
        // If this fails, clients of one customer reach the servers of another.
        let names = Names::new(["*.Example.com", "exact.example.org"]);
        for name in ["a.example.com", "a.b.c.example.com", "exact.example.org"] {
            assert!(names.contains(name), "{name}");
        }
        for name in ["example.com", ".example.com", "badexample.com", "a.exact.example.org", ""] {
            assert!(!names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_first_that_matches_is_taken() {
        // If this fails, the order of the file does not decide.
        let routes = [
            route(&["a.example"], &["h2"], &[], 1),
            route(&["a.example"], &[], &[], 2),
            route(&[], &["h2"], &[], 3),
            route(&["*.a.example"], &[], &["10.0.0.0/8"], 4),
        ];
        let taken = |hello: &ClientHello| choose(&routes, client(), Known::Hello(hello));
        assert_eq!(taken(&hello(Some("a.example"), &["http/1.1", "h2"])), Choice::Taken(1, 0));
        assert_eq!(taken(&hello(Some("a.example"), &["http/1.1"])), Choice::Taken(2, 1));
        assert_eq!(taken(&hello(None, &["h2"])), Choice::Taken(3, 2));
        assert_eq!(taken(&hello(Some("b.a.example"), &[])), Choice::Taken(4, 3));
        assert_eq!(taken(&hello(Some("b.example"), &[])), Choice::Default);
        assert_eq!(choose(&routes, client(), Known::NoHello), Choice::Default);
    }

    #[test]
    fn a_hello_is_waited_for_only_when_it_decides() {
        // If this fails, clients of a server that speaks first wait for nothing.
        let by_client = route(&[], &[], &["10.0.0.0/8"], 1);
        let by_name = route(&["a.example"], &[], &[], 2);
        let elsewhere = route(&["a.example"], &[], &["192.168.0.0/16"], 3);
        let now = |routes: &[Route<u8>]| choose(routes, client(), Known::Nothing);
        assert_eq!(now(&[by_client.clone(), by_name.clone()]), Choice::Taken(1, 0));
        assert_eq!(now(&[elsewhere.clone(), by_client.clone()]), Choice::Taken(1, 1));
        assert_eq!(now(&[by_name.clone(), by_client.clone()]), Choice::NeedsHello);
        assert_eq!(now(&[elsewhere]), Choice::Default);
        let both = [by_name, by_client];
        assert_eq!(choose(&both, client(), Known::NoHello), Choice::Taken(1, 1));
        assert_eq!(choose(&both, None, Known::NoHello), Choice::Default, "on a Unix socket");
    }

    #[test]
    fn tls_and_the_rest_go_apart() {
        // If this fails, clients of one port that do not speak TLS reach the servers that do.
        let with = |is_tls, target| Route { is_tls: Some(is_tls), ..route(&[], &[], &[], target) };
        let routes = [route(&["a.example"], &[], &[], 1), with(true, 2), with(false, 3)];
        let at = |known: Known<'_>| choose(&routes, client(), known);
        assert_eq!(at(Known::Nothing), Choice::NeedsHello);
        assert_eq!(at(Known::Hello(&hello(Some("a.example"), &[]))), Choice::Taken(1, 0));
        assert_eq!(at(Known::Hello(&hello(Some("b.example"), &[]))), Choice::Taken(2, 1));
        assert_eq!(at(Known::Hello(&hello(None, &[]))), Choice::Taken(2, 1));
        assert_eq!(at(Known::NoHello), Choice::Taken(3, 2));
        assert_eq!(choose(&routes[2..], None, Known::Hello(&hello(None, &[]))), Choice::Default);
    }

    proptest! {
        #[test]
        fn case_never_matters(name in "[a-zA-Z0-9-]{1,20}(\\.[a-zA-Z0-9-]{1,20}){0,3}") {
            // If this fails, one client finds its server and another does not.
            let lower = name.to_ascii_lowercase();
            prop_assert!(Names::new([name.as_str()]).contains(&lower));
            let (wild, below) = (format!("*.{name}"), format!("x.{lower}"));
            prop_assert!(Names::new([wild.as_str()]).contains(&below));
            prop_assert!(!Names::new([wild.as_str()]).contains(&lower));
        }
    }
}
