//! curl, whose answer evenkeel cuts, and vsftpd, whose upload it cuts: half of a transfer must not
//! look like all of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use parking_lot::Mutex;

use crate::in_front_of;
use crate::program::{Server, program};
use crate::support::{Backend, Proxy, connect, free_address};

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

/// Sends a command, and waits for a line that begins with `wanted`.
#[track_caller]
fn say(control: &mut BufReader<TcpStream>, command: &str, wanted: &str) {
    if !command.is_empty() {
        write!(control.get_mut(), "{command}\r\n").unwrap();
    }
    let mut line = String::new();
    control.read_line(&mut line).unwrap();
    assert!(line.starts_with(wanted), "{command}: {line}");
}

/// If it fails, a file server keeps half of an upload as the whole file.
#[test]
fn vsftpd_knows_that_an_upload_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vsftpd.conf");
    let root = directory.path().join("root");
    let incoming = root.join("incoming");
    std::fs::create_dir_all(&incoming).unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(directory.path(), open_to_all(0o755)).unwrap();
    std::fs::set_permissions(&incoming, open_to_all(0o777)).unwrap();
    let data = free_address();
    let server = Server::start(|address| {
        let (root, empty) = (root.display(), directory.path().display());
        let (control, passive) = (address.port(), data.port());
        let text = format!(
            "listen=YES\nlisten_address=127.0.0.1\nlisten_port={control}\nbackground=NO\n\
             anonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nwrite_enable=YES\n\
             anon_upload_enable=YES\nanon_root={root}\nsecure_chroot_dir={empty}\n\
             seccomp_sandbox=NO\npasv_min_port={passive}\npasv_max_port={passive}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program("vsftpd"));
        command.arg(&file);
        command
    });
    let config = in_front_of(&[data], "");
    let proxy = Proxy::start(&config.replace("[pool.p]", "idle_timeout = \"300ms\"\n[pool.p]"));

    let mut control = BufReader::new(connect(server.address()));
    for (command, wanted) in [
        ("", "220 "),
        ("USER anonymous", "230 "),
        ("TYPE I", "200 "),
        ("CWD incoming", "250 "),
        ("PASV", "227 "),
    ] {
        say(&mut control, command, wanted);
    }
    let mut upload = connect(proxy.address());
    say(&mut control, "STOR half", "150 ");
    upload.write_all(b"the first half").unwrap();
    // 226 would be "transfer complete".
    say(&mut control, "", "426 ");
}
