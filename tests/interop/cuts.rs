//! curl, whose answer evenkeel cuts: half of an answer must not look like all of it.

use std::io::{Read, Write};
use std::process::Command;

use parking_lot::Mutex;

use crate::in_front_of;
use crate::program::program;
use crate::support::{Backend, Proxy};

/// Begins an answer with this head, and leaves it there.
fn unfinished(head: &'static str) -> Backend {
    let held = Mutex::new(Vec::new());
    Backend::serving(move |mut stream, _| {
        stream.read_exact(&mut [0; 16])?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"the first half")?;
        held.lock().push(stream.try_clone()?);
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

/// If it fails, curl exits with 0 for an answer that was cut for silence.
#[test]
fn curl_knows_that_an_answer_was_cut() {
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"] {
        let backend = unfinished(head);
        let config = in_front_of(&[backend.address()], "");
        let config = config.replace("[pool.p]", "idle_timeout = \"300ms\"\n[pool.p]");
        let proxy = Proxy::start(&config);
        let mut curl = Command::new(program("curl"));
        curl.args(["--silent", "--max-time", "20", "--noproxy", "*", "--output", "/dev/null"]);
        let status = curl.arg(format!("http://{}/", proxy.address())).status().unwrap();
        // 18: fewer bytes than announced; 56: the connection was reset.
        assert!(status.code().is_some_and(|code| [18, 56].contains(&code)), "{status}, {head}");
    }
}
