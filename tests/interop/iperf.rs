//! iperf3 through evenkeel, both ways: bulk over connections that last.

use std::process::Command;

use serde_json::Value;

use crate::in_front_of;
use crate::program::{Server, program, text_of};
use crate::support::Proxy;

/// What is sent: several times what all buffers on the way hold, however slow the machine is.
const BYTES: &str = "256M";
/// The receiver is cut off with what is still on the way, and has had at least this.
const RECEIVED_MIN: u64 = 64 << 20;
/// With both directions at once, iperf3 ends as soon as one of them has sent everything. Which one
/// the machine favours until then is not ours to say; that the other moves at all is.
const SLOWER_RECEIVED_MIN: u64 = 1 << 20;

fn run(splice: &str, direction: &[&str]) {
    // One for each run: after a test the server is busy for a moment and refuses the next one.
    let server = Server::start(|address| {
        let mut command = Command::new(program("iperf3"));
        command.args(["-s", "-B", "127.0.0.1", "-p", &address.port().to_string()]);
        command
    });
    let global = format!("[global]\nsplice = \"{splice}\"\n");
    let proxy = Proxy::start(&(global + &in_front_of(&[server.address()], "")));
    let port = proxy.address().port().to_string();
    let mut command = Command::new(program("iperf3"));
    command.args(["-c", "127.0.0.1", "-p", &port, "-n", BYTES, "-P", "2", "--json"]);
    let said = text_of(command.args(direction));
    let report: Value = serde_json::from_str(&said).unwrap();
    assert!(report.get("error").is_none(), "{splice} {direction:?}: {said}");
    let received = |sum: &str| report["end"][sum]["bytes"].as_u64();
    let mut directions = vec![received("sum_received").expect("iperf3 reports a sum")];
    directions.extend(received("sum_received_bidir_reverse"));
    assert_eq!(directions.len(), 1 + usize::from(direction == ["--bidir"]), "{said}");
    let (least, most) = (directions.iter().min(), directions.iter().max());
    assert!(least > Some(&SLOWER_RECEIVED_MIN), "{splice} {direction:?}: {directions:?}");
    assert!(most > Some(&RECEIVED_MIN), "{splice} {direction:?}: {directions:?}");
}

/// If it fails, bulk stalls in one direction, or in one of the ways to move it.
#[test]
fn iperf_moves_bulk_both_ways() {
    for splice in ["auto", "always", "never"] {
        for direction in [&[][..], &["--reverse"], &["--bidir"]] {
            run(splice, direction);
        }
    }
}
