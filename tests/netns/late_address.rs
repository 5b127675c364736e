//! An address that comes to this host after evenkeel has started, goes, and comes back, as one of
//! keepalived does.

use std::io::{Read, Write};

use crate::actor::{Actor, Habit};
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::try_connect;

const LATE: &str = "10.1.0.253/24";

/// If it fails, the node that takes an address over serves nobody there until it is restarted.
#[test]
fn an_address_that_comes_later_is_served() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let config = net.config(&[1], Keys { listener: "freebind = true", ..Keys::default() });
    let front = net.front().to_string();
    let config = config.replace(&front, "10.1.0.253:7000");
    let proxy = net.evenkeel_under(&[], &config);
    for time in ["it has come", "it has come back"] {
        net.run(Side::Evenkeel, "ip", &["address", "add", LATE, "dev", "ek-up"]);
        net.on(Side::Client, || {
            let mut client = try_connect(proxy.address()).unwrap();
            client.write_all(b"here").unwrap();
            let mut heard = [0; 4];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"here", "{time}");
        });
        net.run(Side::Evenkeel, "ip", &["address", "del", LATE, "dev", "ek-up"]);
    }
    show("a listening address that comes, goes and comes back", "served each time", "served");
}
