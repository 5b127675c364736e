//! The command line of the real binary: what each verb prints and how it exits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::admin::{Answer, http};
use support::verbs::{code, command, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, eventually};

const GOOD: &str = "[listener.db]\nbind = [\"127.0.0.1:0\"]\npool = \"pg\"\nbacklog = 16\n\
                    [pool.pg]\nbackends = [\"127.0.0.1:9\"]\n";

fn written(directory: &Path, config: &str) -> PathBuf {
    let file = directory.join("evenkeel.toml");
    std::fs::write(&file, config).unwrap();
    file
}

// If this fails, deployment scripts take a bad file for a good one.
#[test]
fn check_tells_by_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let warned = format!("{GOOD}[pool.unused]\nbackends = [\"127.0.0.1:7\"]\n");
    let cases: [(&str, &[&str], i32, &str); 6] = [
        (GOOD, &[], 0, "is valid"),
        (GOOD, &["--strict"], 0, "is valid"),
        (&warned, &[], 0, "1 warning"),
        (&warned, &["--strict"], 3, "unused"),
        ("[pool.pg]\nbackend = []\n", &[], 78, "backends"),
        ("[pool.pg\n", &["--strict"], 78, "error"),
    ];
    for (config, arguments, expected, word) in cases {
        let file = written(directory.path(), config);
        let mut all = vec!["check", "-c", file.to_str().unwrap()];
        all.extend(arguments);
        let output = evenkeel(&all);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(code(&output), expected, "{config}\n{said}");
        assert!(said.contains(word), "{said}");
        assert!(!said.contains('\u{1b}'), "colour without a terminal: {said}");
    }
    let output = evenkeel(&["check", "-c", "/nonexistent/evenkeel.toml"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("cannot read"), "{}", text(&output.stderr));
}

// If this fails, editors and pipelines cannot read what `check` found.
#[test]
fn check_speaks_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "[listener.db]\nbindd = [\"127.0.0.1:0\"]\n");
    let output = evenkeel(&["check", "--format", "json", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&output), 78);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["valid"], false);
    let problems = document["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["line"] == 2), "{document}");
    for field in ["severity", "file", "line", "column", "key", "message", "expected", "hint"] {
        assert!(problems.iter().all(|problem| problem.get(field).is_some()), "{field}");
    }
}

// If this fails, a limit that the host cuts is found out only when it is reached.
#[test]
fn check_warns_of_what_the_host_does_not_grant() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!("{GOOD}[global]\nmax_sessions = 99000000\n");
    let file = written(directory.path(), &config);
    let output = evenkeel(&["check", "--strict", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&output), 3);
    assert!(text(&output.stderr).contains("descriptors"), "{}", text(&output.stderr));
}

// If this fails, the printed configuration is not the one that would run.
#[test]
fn config_prints_what_check_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), GOOD);
    let printed = evenkeel(&["config", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&printed), 0);
    let file = written(directory.path(), &text(&printed.stdout));
    assert_eq!(code(&evenkeel(&["check", "-c", file.to_str().unwrap()])), 0);
    let again = evenkeel(&["config", "-c", file.to_str().unwrap()]);
    assert_eq!(text(&again.stdout), text(&printed.stdout));
    let bad = written(directory.path(), "[pool.x]\n");
    assert_eq!(code(&evenkeel(&["config", "-c", bad.to_str().unwrap()])), 78);
}

// If this fails, wrong usage looks like a failure or a success.
#[test]
fn wrong_usage_exits_2() {
    for arguments in [
        &["frobnicate"][..],
        &["drain", "no-slash"],
        &["weight", "a/b", "70000"],
        &["weight", "a/b"],
        &["demo", "--for", "10"],
        &["status", "--json", "-q"],
        &[],
    ] {
        assert_eq!(code(&evenkeel(arguments)), 2, "{arguments:?}");
    }
}

// If this fails, packages lack completions, a manual page, or a version they can read.
#[test]
fn packaging_verbs_print() {
    let version = evenkeel(&["version", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&version.stdout).unwrap();
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert!(text(&evenkeel(&["version"]).stdout).contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&evenkeel(&["completions", shell]).stdout);
        assert!(script.contains("evenkeel") && script.contains("drain"), "{shell}: {script}");
    }
    assert!(text(&evenkeel(&["man"]).stdout).contains(".TH evenkeel 1"));
    assert!(text(&evenkeel(&["man", "drain"]).stdout).contains("evenkeel\\-drain"));
}

// If this fails, a script cannot tell "not running" from "not ready", or gets noise from `-q`.
#[test]
fn a_process_that_is_not_there_is_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    for verb in [&["status"][..], &["reload"], &["drain", "a/b"], &["weight", "a/b", "1"]] {
        let output = evenkeel(&[verb, &["--socket", socket]].concat());
        assert_eq!(code(&output), 1, "{verb:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with("evenkeel: cannot talk to evenkeel at"), "{said}");
        assert!(said.contains("\nhelp: "), "{said}");
    }
    let quiet = evenkeel(&["status", "-q", "--socket", socket]);
    assert_eq!(code(&quiet), 1);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

// If this fails, operators cannot steer a running process by its file or its socket.
#[test]
fn verbs_reach_the_process() {
    let one = Backend::named("one");
    let config = format!(
        "[listener.web]\nbind = [\"127.0.0.1:0\"]\npool = \"pool\"\n\
         [pool.pool]\nbackends = [\"{}\"]\n",
        one.address()
    );
    let proxy = Proxy::start(&config);
    let file = proxy.config_file();
    let by_file =
        |arguments: &[&str]| evenkeel(&[arguments, &["-c", file.to_str().unwrap()]].concat());
    let name = format!("pool/{}", one.address());
    assert_eq!(code(&by_file(&["status", "-q"])), 0);
    let shown = text(&by_file(&["status"]).stdout);
    assert!(shown.starts_with("ready:") && shown.contains(&name), "{shown}");

    assert_eq!(code(&by_file(&["drain", &name])), 0);
    assert_eq!(code(&by_file(&["status", "-q"])), 1);
    let output = by_file(&["status"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stdout).starts_with("NOT READY"), "{}", text(&output.stdout));
    assert_eq!(code(&by_file(&["ready", &name])), 0);
    assert_eq!(code(&by_file(&["weight", &name, "3"])), 0);
    let document = text(&by_file(&["status", "--json"]).stdout);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let backend = &document["pools"]["pool"]["backends"][one.address().to_string()];
    assert_eq!((&backend["state"], &backend["weight"]), (&"up".into(), &3.into()));

    let unknown = by_file(&["drain", "pool/absent"]);
    assert_eq!(code(&unknown), 1);
    assert!(text(&unknown.stderr).contains(&one.address().to_string()));

    assert_eq!(code(&by_file(&["reload"])), 0);
    proxy.rewrite(&format!("{config}\nnonsense = 1\n"));
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let output = by_file(arguments);
        assert_eq!(code(&output), 78, "{arguments:?}");
        assert!(text(&output.stderr).contains("nonsense"), "{}", text(&output.stderr));
    }
}

// If this fails, a service manager restarts for ever on a bad file.
#[test]
fn run_refuses_a_bad_file_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "[listener.db]\n");
    let output = evenkeel(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&output), 78);
    let said = text(&output.stderr);
    assert!(said.contains("evenkeel: the configuration is refused"), "{said}");
    assert!(said.contains("`evenkeel check -c FILE` shows every problem"), "{said}");
}

// If this fails, an operator looks in a good file for a mistake that is none, or the unit does not
// try again.
#[test]
fn an_address_that_is_taken_is_no_mistake_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = written(directory.path(), &GOOD.replace("127.0.0.1:0", &address));
    let output = evenkeel(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    assert!(
        said.contains(
            "evenkeel: this host does not let evenkeel listen where the configuration says"
        ),
        "{said}"
    );
    assert!(!said.contains("evenkeel check"), "{said}");

    let page = format!("{GOOD}[admin]\nhttp = \"{address}\"\n");
    let output = evenkeel(&["run", "-c", written(directory.path(), &page).to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    assert!(said.contains("evenkeel.toml:8:8"), "{said}");
}

// If this fails, a process waits for what never comes or never ends, or a script that makes its
// configuration cannot have it checked without a file.
#[test]
fn a_pipe_is_good_enough_to_be_checked_and_not_to_run() {
    let output = evenkeel(&["run", "-c", "/dev/zero"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("no regular file"), "{output:?}");
    let output = evenkeel(&["check", "-c", "/dev/zero"]);
    assert_eq!(code(&output), 78);
    assert!(text(&output.stderr).contains("longer than 128 MiB"), "{}", text(&output.stderr));
    let mut check = command(&["check", "-c", "/dev/stdin"]);
    let mut check = check.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(GOOD.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
}

// If this fails, a script goes on with half a result.
#[test]
fn a_result_that_is_lost_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), GOOD);
    for verb in ["config", "check"] {
        let mut lost = command(&[verb, "-c", file.to_str().unwrap()]);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = lost.stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{verb}");
        assert!(text(&output.stderr).contains("cannot write to stdout"), "{verb}");
    }
}

// If this fails, a verb meant for one process is obeyed by another.
#[test]
fn a_file_that_does_not_tell_its_socket_reaches_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let unclear =
        ["[admin]\nsocket = 5\n", "[listener.web\nbind = []\n", "[pool.p]\nbackends = [oops\n"];
    for broken in unclear {
        let file = written(directory.path(), broken);
        for verb in [&["ready", "a/b", "-c"][..], &["reload", "-c"], &["status", "-c"]] {
            let output = command(verb).arg(&file).output().unwrap();
            assert_eq!(code(&output), 78, "{verb:?} {broken}");
            let said = text(&output.stderr);
            assert!(said.contains("does not tell the admin socket"), "{said}");
            assert!(said.contains("evenkeel.toml:") && said.contains("`--socket PATH`"), "{said}");
        }
    }
    let output = evenkeel(&["status", "-c", "/no/such/file.toml"]);
    assert_eq!(code(&output), 78);
}

/// Addresses of a demonstration: the listener and the admin page.
fn demo_addresses(lines: impl Iterator<Item = String>) -> (SocketAddr, SocketAddr) {
    let mut found = Vec::new();
    for line in lines {
        if (line.contains("behind http://") || line.starts_with("Look at http://"))
            && let Some((_, rest)) = line.split_once("http://")
        {
            found.push(rest.split('/').next().unwrap().parse().unwrap());
        }
        if let [listener, page] = found[..] {
            return (listener, page);
        }
    }
    panic!("the demonstration did not say where it is");
}

// If this fails, the first thing a newcomer tries does not work.
#[test]
fn the_demonstration_shows_three_backends_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(&["demo", "--port", "0", "--admin-port", "0", "--for", "60s"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (listener, page) = demo_addresses(lines);
    let mut bodies: Vec<String> = (0..3)
        .map(|_| {
            let Answer { code, body } =
                http(TcpStream::connect(listener).unwrap(), "GET", "/hello", "");
            assert_eq!(code, 200);
            body
        })
        .collect();
    bodies.sort();
    assert_eq!(bodies, ["blue answers /hello\n", "green answers /hello\n", "red answers /hello\n"]);
    let Answer { code, body } = http(TcpStream::connect(page).unwrap(), "GET", "/", "");
    assert!(code == 200 && body.contains("colours"), "{body}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = eventually("the demonstration ends", PATIENCE, || child.try_wait().unwrap());
    assert!(ended.success());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

// If this fails, the demonstration runs for ever in a script, or hides that its port is taken.
#[test]
fn the_demonstration_ends_by_itself_and_names_a_taken_port() {
    let ended = evenkeel(&["demo", "--port", "0", "--admin-port", "0", "--for", "200ms"]);
    assert_eq!(code(&ended), 0, "{}", text(&ended.stderr));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let listener = evenkeel(&["demo", "--port", &port, "--admin-port", "0", "--for", "9s"]);
    let page = evenkeel(&["demo", "--port", "0", "--admin-port", &port, "--for", "9s"]);
    for (output, option) in [(listener, "`--port N`"), (page, "`--admin-port N`")] {
        assert_eq!(code(&output), 1);
        let said = text(&output.stderr);
        assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
        assert!(said.contains(option) && !said.contains(".toml"), "{said}");
    }
}
