//! A disk that is full: the log goes to a file on a file system without room.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::actor::{Actor, Habit};
use crate::books::{Books, load};
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{PATIENCE, Proxy, eventually, reset_when_dropped, try_connect};

/// Mounts a small file system that only this process sees, and becomes evenkeel with its log there.
const ON_A_SMALL_DISK: &str =
    "mount -t tmpfs -o size=64k none \"$0\" && exec \"$@\" 2>> \"$0/log\"";

/// evenkeel with its log on a disk of its own, which goes with it.
struct Logging {
    proxy: Proxy,
    disk: PathBuf,
    _mount_point: tempfile::TempDir,
}

impl Logging {
    fn start(net: &Net) -> Self {
        let mount_point = tempfile::tempdir().unwrap();
        let (directory, plain) = Proxy::command(&net.config(&[1], Keys::default()));
        let mut command: Command = net.command(Side::Evenkeel, "unshare");
        command.args(["--mount", "sh", "-c", ON_A_SMALL_DISK]).arg(mount_point.path());
        command.arg(plain.get_program()).args(plain.get_args());
        let proxy = Proxy::spawn(directory, command);
        let inside = mount_point.path().strip_prefix("/").unwrap();
        let disk = Path::new("/proc").join(proxy.pid().to_string()).join("root").join(inside);
        let logging = Self { proxy, disk, _mount_point: mount_point };
        eventually("it serves", PATIENCE, || {
            let is_serving = |line: &String| line.contains(" serves ");
            logging.lines().1.iter().any(is_serving).then_some(())
        });
        logging
    }

    /// Takes all the room that is left; how much it was.
    fn fill(&self) -> usize {
        let mut ballast = File::create(self.disk.join("ballast")).unwrap();
        (0..).take_while(|_| ballast.write_all(&[0]).is_ok()).count()
    }

    fn make_room(&self) {
        std::fs::remove_file(self.disk.join("ballast")).unwrap();
    }

    /// The log, empty before there is one: sessions, what else is said, and how many are torn.
    fn lines(&self) -> (usize, Vec<String>, usize) {
        let text = std::fs::read_to_string(self.disk.join("log")).unwrap_or_default();
        // The last one may be in the making.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let (mut sessions, mut others, mut torn) = (0, Vec::new(), 0);
        for line in whole.lines() {
            match serde_json::from_str::<serde_json::Value>(line) {
                Ok(value) if value["event"] == "session" => sessions += 1,
                Ok(value) => others.push(value["message"].to_string()),
                Err(_) => torn += 1,
            }
        }
        (sessions, others, torn)
    }

    fn dropped(&self) -> f64 {
        self.proxy.metric("evenkeel_log_dropped_total", &[])
    }
}

/// Clients one after the other; how many were served.
fn visits(net: &Net, count: usize) -> usize {
    net.on(Side::Client, || {
        let served = (0..count).filter(|_| {
            let Ok(mut client) = try_connect(net.front()) else { return false };
            reset_when_dropped(&client);
            client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
        });
        served.count()
    })
}

/// If it fails, a full disk costs sessions or a core, or the log is not to be trusted afterwards.
#[test]
fn the_log_finds_no_room() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let logging = Logging::start(&net);
    let books = Books::open(&logging.proxy);
    let with_room = visits(&net, 20);
    eventually("sessions are logged", PATIENCE, || (logging.lines().0 == 20).then_some(()));
    let filled = logging.fill();
    let without = visits(&net, 300);
    logging.proxy.wait_for_sessions(0);
    let mut before = (0, 0.0);
    eventually("every line is written or counted", PATIENCE, || {
        before = (logging.lines().0, logging.dropped());
        (before.0 as f64 + before.1 > 319.5).then_some(())
    });
    let busy = load(logging.proxy.pid(), Duration::from_secs(1));
    logging.make_room();
    let again = visits(&net, 20);
    eventually("it logs again", PATIENCE, || (logging.lines().0 >= before.0 + 20).then_some(()));
    let (logged, others, torn) = logging.lines();
    let dropped = logging.dropped();
    show(
        "log on a disk of 64 KiB, all of it taken; later there is room again",
        "all served, lost lines counted, load < 5 %; then it logs on, in whole lines",
        &format!(
            "{filled} bytes taken; {without} of 300 served, {} of their lines written, {} counted \
             as lost, load {busy:.2} %; then {again} of 20 served, {} lines, {torn} torn; \
             {others:?}",
            before.0 - 20,
            before.1,
            logged - before.0,
        ),
    );
    assert_eq!((with_room, without, again), (20, 300, 20));
    assert!(busy < 5.0 && dropped > 0.5);
    assert_eq!(logged as f64 + dropped, 340.0, "sessions that are neither written nor counted");
    let told = format!("{dropped} log lines lost");
    assert!(others.iter().any(|line| line.contains(&told)), "{others:#?}");
    // The one that met the end of the room is counted as lost, and takes no other with it.
    assert!(torn <= 1, "{torn} torn lines");
    books.close(&logging.proxy);
}
