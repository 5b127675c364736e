//! The list of what to read of the plainest session, against what runs.
//!
//! callgrind records the functions that run in the thread of the worker while one session comes and
//! goes: one message each way, then FIN from both sides. Counted are the files of `src/dataplane`,
//! `src/policy` and `src/shared` from which these functions, and those inlined into them, come.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

use crate::support::proxy::Proxy;
use crate::support::{Backend, connect};

#[path = "../tidy/plainest.rs"]
mod said;

/// One listener with defaults, one pool, one backend, one worker.
fn configuration(backend: &Backend) -> String {
    format!(
        "[global]\nworkers = 1\n[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n\
         [pool.p]\nbackends = [\"{}\"]\n",
        backend.address()
    )
}

/// The files from which code has run, by a profile of callgrind. It names a file where it meets it
/// first, with a number by which it is named later, be it as a caller, a callee or by itself.
fn files_that_ran(profile: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(profile).unwrap();
    let (mut names, mut ran) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        let Some((kind, file)) = line.split_once("=(") else { continue };
        let Some((number, name)) = file.split_once(')') else { continue };
        if ["fl", "fi", "fe", "cfi", "cfl"].contains(&kind) {
            if let Some(name) = name.strip_prefix(' ') {
                names.insert(number, name);
            }
            if !kind.starts_with('c') {
                ran.insert(number);
            }
        }
    }
    let ran = ran.iter().filter_map(|number| names.get(number));
    ran.filter_map(|name| in_rooms(name)).map(str::to_owned).collect()
}

/// The path from the root of the repository, if the file is in one of the rooms that count.
fn in_rooms(name: &str) -> Option<&str> {
    let rooms = ["src/dataplane/", "src/policy/", "src/shared/"];
    let at = rooms.iter().find_map(|room| name.find(room))?;
    name.get(at..)
}

/// Has a callgrind begin or end to record.
fn record(callgrind: &Proxy, what: &str) {
    let told = Command::new("callgrind_control")
        .args([format!("--instr={what}"), callgrind.pid().to_string()])
        .output()
        .unwrap();
    assert!(told.status.success(), "{told:?}");
}

// If this fails, the list in ARCHITECTURE.md leaves out a file that a reader needs, or names one
// to which the plainest session never comes.
#[test]
fn the_plainest_session_runs_through_the_files_of_the_list() {
    let backend = Backend::echo();
    let (directory, plain) = Proxy::command(&configuration(&backend));
    let profile = directory.path().join("profile");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--instr-atstart=no", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(plain.get_program())
        .args(plain.get_args());
    let mut proxy = Proxy::spawn(directory, command);
    proxy.wait_until_serving();
    record(&proxy, "on");
    let mut client = connect(proxy.address());
    client.write_all(b"a word").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut answer).unwrap(), 0);
    proxy.wait_for_session_lines(1);
    record(&proxy, "off");
    assert!(proxy.stop().success());
    let threads = fs::read_dir(profile.parent().unwrap()).unwrap().map(|it| it.unwrap().path());
    let threads = threads.filter(|path| path.to_string_lossy().contains("profile-"));
    let is_worker = |ran: &BTreeSet<String>| ran.contains("src/dataplane/worker.rs");
    let ran = threads.map(|path| files_that_ran(&path)).find(is_worker).unwrap();
    let said = said::Plainest::read();
    let missing: Vec<&String> = ran.iter().filter(|path| !said.all().contains(*path)).collect();
    assert!(missing.is_empty(), "these run and are not listed: {missing:?}");
    let idle: Vec<&String> = said.list.iter().filter(|path| !ran.contains(*path)).collect();
    assert!(idle.is_empty(), "these are listed and do not run: {idle:?}");
}
