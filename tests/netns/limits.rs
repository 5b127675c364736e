//! Too little of something: descriptors, pipes, memory, CPU time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::actor::{Actor, Habit};
use crate::books::{Books, load, resident_kib};
use crate::crowd::{Stage, play_all};
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{PATIENCE, Proxy, eventually, reset_when_dropped, try_connect, within};

/// If it fails, an installation that does not run as root stalls once the kernel gives no pipes.
#[test]
fn pipes_of_an_ordinary_user() {
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let (directory, plain) = Proxy::command(
        &net.config(&[1], Keys { global: "workers = 2\nsplice = \"always\"", ..Keys::default() }),
    );
    // Where the user may read the program and write its socket.
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = directory.path().join("evenkeel");
    std::fs::copy(plain.get_program(), &program).unwrap();
    let mut command = net.command(Side::Evenkeel, "setpriv");
    // A user of this test alone, whose pipes are counted alone.
    let user = (1_000_000 + std::process::id()).to_string();
    command.args(["--reuid", &user, "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    command.args(["--bounding-set=-all"]).arg(program).args(plain.get_args());
    let mut proxy = Proxy::spawn(directory, command);
    proxy.wait_until_serving();
    let books = Books::open(&proxy);
    // Another process of the same user has taken them all.
    let hog = Hog::start(&net, &user);
    let outcome = play_all(&net, ("no pipes", proxy.address()), &stage, (120 << 32, 200));
    let spliced = proxy.metric("evenkeel_bytes_total", &[("path", "splice")]);
    drop(hog);
    let after = play_all(&net, ("pipes again", proxy.address()), &stage, (121 << 32, 600));
    let spliced_after = proxy.metric("evenkeel_bytes_total", &[("path", "splice")]);
    show(
        "ordinary user, pipe-user-pages-soft used up by another process; then given back",
        "copies instead, no failure; splices again later",
        &format!(
            "{} sessions, {} failures, {spliced} bytes spliced; then {} sessions, {} failures, \
             {spliced_after} bytes",
            outcome.sessions,
            outcome.failures.len(),
            after.sessions,
            after.failures.len()
        ),
    );
    assert!(outcome.failures.is_empty() && after.failures.is_empty());
    assert!(spliced < 0.5 && spliced_after > 1.0);
    books.close(&proxy);
}

/// A process of a user that holds all pipe pages an ordinary user gets; ended when dropped.
struct Hog(std::process::Child);

impl Hog {
    fn start(net: &Net, user: &str) -> Self {
        let itself = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = directory.path().join("hog");
        std::fs::copy(itself, &program).unwrap();
        let mut command = net.command(Side::Evenkeel, "setpriv");
        command.args(["--reuid", user, "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
        command.args(["--bounding-set=-all"]).arg(&program);
        command.args(["--exact", "limits::hogs", "--nocapture"]).env("EVENKEEL_HOG", "1");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut said = Vec::new();
        let mut byte = [0];
        while !said.ends_with(b"hogged") {
            output.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        Self(child)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The part of the process above; as a test of its own it has none and passes.
#[test]
fn hogs() {
    if std::env::var("EVENKEEL_HOG").is_err() {
        return;
    }
    let mut pipes = Vec::new();
    loop {
        let Ok((reader, writer)) = rustix::pipe::pipe() else { break };
        let size = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
        let size = size.or_else(|_| rustix::pipe::fcntl_getpipe_size(&writer));
        let is_last = size.is_ok_and(|size| size <= 2 * 4096);
        pipes.push((reader, writer));
        if is_last {
            break;
        }
    }
    println!("hogged");
    // Until its parent ends it.
    let _end = std::io::stdin().read(&mut [0]);
}

/// If it fails, running out of descriptors ends sessions, spins, or lasts.
#[test]
fn descriptors_run_out() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let config = net.config(&[1], Keys { global: "workers = 2", ..Keys::default() });
    let proxy = net.evenkeel_under(&["prlimit", "--nofile=512:512"], &config);
    let books = Books::open(&proxy);
    let mut clients: Vec<TcpStream> = net
        .on(Side::Client, || (0..400).filter_map(|_| try_connect(proxy.address()).ok()).collect());
    let served = clients.iter_mut().filter_map(|client| {
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()
    });
    let served = served.count();
    let busy = load(proxy.pid(), Duration::from_secs(1));
    let refused = proxy.metric("evenkeel_listener_refused_total", &[]);
    for client in &clients {
        reset_when_dropped(client);
    }
    drop(clients);
    let freed = Instant::now();
    eventually("a client is served again", PATIENCE, || {
        net.on(Side::Client, || {
            let mut client = try_connect(proxy.address()).ok()?;
            client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()
        })
    });
    let elapsed = freed.elapsed();
    show(
        "512 descriptors, 400 clients",
        "as many served as fit, the rest refused, load < 5 %, new ones served within 1 s",
        &format!("{served} served, {refused} refused, load {busy:.1} %, again after {elapsed:?}"),
    );
    assert!(served > 100 && busy < 5.0 && elapsed < Duration::from_secs(1));
    books.close(&proxy);
}

/// A control group of version 1 with one limit; removed when dropped.
struct Group {
    directory: PathBuf,
}

impl Group {
    /// `None` where this machine has no such controller to write to.
    fn new(controller: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let name = format!("evenkeel-test-{}", std::process::id());
        let directory = PathBuf::from("/sys/fs/cgroup").join(controller).join(name);
        std::fs::create_dir(&directory).ok()?;
        let group = Self { directory };
        for (file, value) in settings {
            std::fs::write(group.directory.join(file), value).ok()?;
        }
        Some(group)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.join(file)).unwrap()
    }

    /// A shell that joins the group and becomes what follows.
    fn joining(&self) -> [String; 4] {
        let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.directory.display());
        ["sh".to_owned(), "-c".to_owned(), join, "sh".to_owned()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        within(PATIENCE, || std::fs::remove_dir(&self.directory).ok());
    }
}

/// If it fails, clients that do not read make the kernel kill the process.
#[test]
fn memory_is_short() {
    let Some(group) = Group::new("memory", &[("memory.limit_in_bytes", "67108864")]) else {
        println!("not shown: no memory controller of version 1 to write to");
        return;
    };
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let config = net.config(&[1], Keys { global: "workers = 2", ..Keys::default() });
    let joining = group.joining();
    let proxy = net.evenkeel_under(&joining.each_ref().map(String::as_str), &config);
    let limit = proxy.metric("evenkeel_sessions_max", &[]);
    // More clients than fit; none reads a byte.
    let clients: Vec<TcpStream> = net
        .on(Side::Client, || (0..400).filter_map(|_| try_connect(proxy.address()).ok()).collect());
    within(Duration::from_secs(3), || None::<()>);
    let (peak, killed) =
        (group.read("memory.max_usage_in_bytes"), group.read("memory.oom_control"));
    let (sessions, resident) = (proxy.sessions(), resident_kib(proxy.pid()));
    let refused = proxy.metric("evenkeel_listener_refused_total", &[("reason", "max_sessions")]);
    show(
        "64 MiB of memory for the process, 400 clients that never read 64 MiB each",
        "sessions bounded by memory, the rest refused, not killed",
        &format!(
            "at most {limit} sessions, {sessions} open, {refused} refused, \
             resident {resident} KiB, peak {} of 67108864 bytes, {}",
            peak.trim(),
            killed.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
    );
    assert!(killed.contains("oom_kill 0") || !killed.contains("oom_kill "), "{killed}");
    assert!(sessions > 0 && resident < 60_000);
    drop(clients);
    proxy.wait_for_sessions(0);
    drop(proxy);
}

/// If it fails, a process that gets little CPU time takes its backends for dead.
#[test]
fn a_tenth_of_a_core() {
    let settings = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "10000")];
    let Some(group) = Group::new("cpu", &settings) else {
        println!("not shown: no cpu controller of version 1 to write to");
        return;
    };
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let _other = Actor::start(&net, net.backend(2), Habit::Echoes);
    let mut config = net.config(&[1], Keys { global: "workers = 2", ..Keys::default() });
    config.push_str(&format!(
        "[listener.other]\nbind = [\"10.1.0.254:7001\"]\npool = \"probed\"\n\
         [pool.probed]\nbackends = [\"{}\"]\n[pool.probed.health]\ninterval = \"100ms\"\n\
         timeout = \"500ms\"\n",
        net.backend(2)
    ));
    let joining = group.joining();
    let proxy = net.evenkeel_under(&joining.each_ref().map(String::as_str), &config);
    let outcome = play_all(&net, ("a tenth of a core", proxy.address()), &stage, (130 << 32, 400));
    let probes = |result| proxy.metric("evenkeel_backend_probes_total", &[("result", result)]);
    let (passed, failed) = (probes("pass"), probes("fail"));
    let throttled = group.read("cpu.stat");
    let up = proxy.metric("evenkeel_backend_up", &[("pool", "probed")]);
    show(
        "a tenth of a core, 96 clients at once, probes every 100 ms",
        "no session fails, no backend goes down",
        &format!(
            "{} sessions, {} failures, {passed} probes passed, {failed} failed, {}",
            outcome.sessions,
            outcome.failures.len(),
            throttled.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
    );
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(passed > 5.0 && up > 0.5);
}

/// If it fails, a client of a backend that is down is connected to evenkeel's own echo.
#[test]
fn connections_that_meet_themselves() {
    let net = Net::new(Link::PLAIN);
    // Source ports of evenkeel's namespace, and a backend that has one of them and is not there.
    net.run(Side::Evenkeel, "sysctl", &["-q", "-w", "net.ipv4.ip_local_port_range=8001 8004"]);
    let config = net.config(&[1], Keys { pool: "retries = 0", ..Keys::default() });
    let config = config.replace(&net.backend(1).to_string(), "127.0.0.1:8001");
    let proxy = net.evenkeel_under(&[], &config);
    let books = Books::open(&proxy);
    let echoed = net.on(Side::Client, || {
        let visits = (0..200).filter(|_| {
            let Ok(mut client) = try_connect(proxy.address()) else { return false };
            client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
        });
        visits.count()
    });
    let failures =
        |reason| proxy.metric("evenkeel_backend_connect_failures_total", &[("reason", reason)]);
    let (loops, refused) = (failures("loop"), failures("refused"));
    show(
        "backend on a free port of this host, 4 source ports to choose from, 200 clients",
        "a connection that met itself is recognised, counted and given up",
        &format!("{loops} loops and {refused} refused counted, {echoed} clients heard their echo"),
    );
    assert!(echoed == 0 && loops > 0.5);
    books.close(&proxy);
}
