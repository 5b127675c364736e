//! Any bytes to the admin socket of a running evenkeel: an answer or the end of the connection, in
//! bounded time, and the next request is answered.

#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use evenkeel::control::{RunOptions, run};
use libfuzzer_sys::fuzz_target;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(8);

const CONFIG: &str = r#"
[global]
workers = 1
log = { sessions = "none", level = "error" }
[listener.web]
bind = ["127.0.0.1:0"]
pool = "web"
[pool.web]
backends = [{ name = "one", address = "127.0.0.1:9" }]
"#;

/// Starts it once; where its socket is.
fn socket() -> &'static PathBuf {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("evenkeel-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (file, socket) = (directory.join("evenkeel.toml"), directory.join("admin.sock"));
        let text = format!("{CONFIG}[admin]\nsocket = \"{}\"\n", socket.display());
        std::fs::write(&file, text).expect("a file");
        static READY: OnceLock<mpsc::SyncSender<()>> = OnceLock::new();
        let (ready, is_ready) = mpsc::sync_channel(1);
        READY.set(ready).expect("once");
        std::thread::spawn(move || {
            let on_ready = |_: &_| READY.get().expect("set").send(()).expect("the test waits");
            let ended =
                run(&RunOptions { file, stop_after: None, on_ready, can_be_replaced: false });
            panic!("it ended: {ended:?}");
        });
        is_ready.recv_timeout(PATIENCE).expect("it serves");
        socket
    })
}

fn ask(bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket()).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may have hung up before everything was sent, or at its end.
    let _early = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no end within {PATIENCE:?}");
    }
    answer
}

fuzz_target!(|bytes: &[u8]| {
    let answer = ask(bytes);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
    let alive = ask(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&alive));
});
