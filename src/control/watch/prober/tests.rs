//! Verdicts and reloads, with a plane that has no workers and servers in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::config::Config;
use crate::control::host::trust::TlsProbes;
use crate::control::plane::health_book::ProbeCounts;
use crate::control::plane::overrides::Overrides;
use crate::control::reload::publish::{compiled, publish};
use crate::control::watch::prober::roster::Prober;
use crate::shared::Tally;

const DEADLINE: Duration = Duration::from_secs(5);

const HEALTH: &str = "[pool.web.health]
interval = \"20ms\"
fast_interval = \"20ms\"
timeout = \"200ms\"
down_backoff = \"50ms\"";

/// A listening socket that can be taken away and put back; the kernel answers for it.
struct Port {
    address: SocketAddr,
    open: Option<TcpListener>,
}

impl Port {
    async fn open() -> Self {
        // An address of its own: no connection of another test can take the port meanwhile.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [high, low] = std::process::id().to_be_bytes()[2..] else { unreachable!("four bytes") };
        let own = Ipv4Addr::new(127, 64 | high >> 2, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((own, 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), open: Some(listener) }
    }

    /// A port that refuses.
    async fn closed() -> Self {
        let mut port = Self::open().await;
        port.open = None;
        port
    }
}

struct Control {
    plane: Arc<Plane>,
    prober: Prober,
}

impl Control {
    async fn new(text: &str) -> Self {
        let plane = Arc::new(Plane::without_workers(parse(text)));
        let prober = Prober::new(Arc::clone(&plane));
        let control = Self { plane, prober };
        control.reload(text).await;
        control
    }

    async fn reload(&self, text: &str) {
        let config = parse(text);
        let overrides = Overrides::new();
        let succession = compiled(&self.plane, &config, &[Vec::new()], &overrides, &[]).unwrap();
        let snapshot = Arc::clone(&succession.snapshot);
        let probes = self.prober.changes(&config, &snapshot, &TlsProbes::default());
        publish(&self.plane, succession).await;
        self.plane.current.lock().config = Arc::new(config);
        self.prober.take_up(probes).await;
    }

    fn backend(&self, name: &str) -> Arc<Backend> {
        let snapshot = self.plane.publisher.latest();
        let found = snapshot.pools.iter().flatten().flat_map(|pool| pool.backends());
        found.into_iter().find(|backend| backend.name == name).cloned().unwrap()
    }

    fn is_up(&self, name: &str) -> bool {
        self.backend(name).state.is_up()
    }

    fn counts(&self, name: &str) -> ProbeCounts {
        let backend = self.backend(name);
        self.plane.health.lock().get(&backend).map(|known| known.probes).unwrap_or_default()
    }

    /// Probes that passed, and that failed.
    fn results(&self, name: &str) -> [u64; 2] {
        let ProbeCounts { passed, failed, .. } = self.counts(name);
        [passed, failed]
    }

    fn reason(&self, name: &str) -> Option<String> {
        let backend = self.backend(name);
        let health = self.plane.health.lock();
        health.get(&backend)?.verdict.as_ref().map(|verdict| verdict.reason.clone())
    }
}

fn parse(text: &str) -> Config {
    let parsed = crate::config::parse(text, Path::new("evenkeel.toml"));
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems))
}

/// A configuration with backends of these names and addresses.
fn config(backends: &[(&str, SocketAddr)], health: &str) -> String {
    let list: Vec<String> = backends
        .iter()
        .map(|(name, address)| format!("{{ address = \"{address}\", name = \"{name}\" }}"))
        .collect();
    format!(
        "[listener.in]\nbind = [\"127.0.0.1:0\"]\npool = \"web\"\n\
         [pool.web]\nbackends = [{}]\n{health}\n",
        list.join(", ")
    )
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for `count` further results of a backend.
async fn results(control: &Control, name: &str, count: u64) {
    let total = || {
        let counts = control.counts(name);
        counts.passed + counts.failed
    };
    let before = total();
    eventually("probes go on", || total() >= before + count).await;
}

// If this fails, a dead backend keeps its clients, or one that is back gets none.
#[tokio::test]
async fn a_backend_falls_and_rises_and_says_why() {
    let mut port = Port::closed().await;
    let control = Control::new(&config(&[("a", port.address)], HEALTH)).await;
    assert!(control.is_up("a"));
    eventually("down", || !control.is_up("a")).await;
    assert_eq!(control.results("a"), [0, 3]);
    assert_eq!(control.reason("a").unwrap(), "connect refused (3 of 3 probes failed)");
    port.open = Some(TcpListener::bind(port.address).await.unwrap());
    eventually("up", || control.is_up("a")).await;
    assert_eq!(control.reason("a").unwrap(), "2 of 2 probes passed");
}

// If this fails, a backend gets clients before it has shown that it serves.
#[tokio::test]
async fn initial_down_waits_for_rise() {
    let port = Port::open().await;
    let health = format!("{HEALTH}\ninitial = \"down\"");
    let control = Control::new(&config(&[("a", port.address)], &health)).await;
    assert!(!control.is_up("a"));
    eventually("up", || control.is_up("a")).await;
    assert_eq!(control.results("a"), [2, 0]);
}

// If this fails, a reload forgets which backends are down, or leaves a probe behind.
#[tokio::test]
async fn a_reload_keeps_what_stays_and_ends_what_is_gone() {
    let (dead, live, new) = (Port::closed().await, Port::open().await, Port::closed().await);
    let before = [("dead", dead.address), ("live", live.address)];
    let control = Control::new(&config(&before, HEALTH)).await;
    eventually("down", || !control.is_up("dead")).await;
    let gone = control.backend("live");
    let failed = control.counts("dead").failed;

    control.reload(&config(&[("new", new.address), ("dead", dead.address)], HEALTH)).await;
    assert!(!control.is_up("dead"));
    assert!(control.counts("dead").failed >= failed);
    assert_eq!(control.reason("dead").unwrap(), "connect refused (3 of 3 probes failed)");
    eventually("new is probed", || !control.is_up("new")).await;
    results(&control, "dead", 2).await;
    assert!(control.plane.health.lock().get(&gone).is_none());
}

// If this fails, a pool that is renamed serves nobody until its first verdicts, or sends clients to
// what its probes had found down.
#[tokio::test]
async fn another_name_keeps_the_verdict() {
    let (dead, live) = (Port::closed().await, Port::open().await);
    let health = format!("{HEALTH}\ninitial = \"down\"");
    let text = config(&[("dead", dead.address), ("live", live.address)], &health);
    let control = Control::new(&text).await;
    eventually("judged", || control.is_up("live") && control.reason("dead").is_some()).await;
    // No probe comes between.
    let slow = text.replace("interval = \"20ms\"", "interval = \"1h\"");
    control.reload(&slow).await;
    control.reload(&slow.replace("\"live\"", "\"l2\"").replace("\"dead\"", "\"d2\"")).await;
    assert!(control.is_up("l2"));
    assert!(!control.is_up("d2"));
    assert_eq!(control.reason("l2").unwrap(), "2 of 2 probes passed");
    // What is asked in another way has not been answered.
    control.reload(&slow.replace("\"live\"", "\"l3\"").replace("\"200ms\"", "\"100ms\"")).await;
    assert!(!control.is_up("l3"));
}

// If this fails, new settings of probes need a restart.
#[tokio::test]
async fn a_reload_brings_new_settings_at_once() {
    let port = Port::closed().await;
    let slow = HEALTH.replace("interval = \"20ms\"", "interval = \"1h\"");
    let control = Control::new(&config(&[("a", port.address)], &format!("{slow}\nfall = 2"))).await;
    eventually("the first probe", || control.counts("a").failed == 1).await;
    control.reload(&config(&[("a", port.address)], &format!("{HEALTH}\nfall = 2"))).await;
    eventually("down", || !control.is_up("a")).await;
    assert_eq!(control.counts("a").failed, 2, "the row went on over the reload");
}

// If this fails, a verdict of probes that exist no more keeps a backend out for ever.
#[tokio::test]
async fn without_probes_a_backend_is_up_and_keeps_that_until_new_ones_judge() {
    let port = Port::closed().await;
    let text = config(&[("a", port.address)], HEALTH);
    let control = Control::new(&text).await;
    eventually("down", || !control.is_up("a")).await;
    control.reload(&config(&[("a", port.address)], "")).await;
    assert!(control.is_up("a"));
    assert_eq!((control.reason("a"), control.counts("a")), (None, ProbeCounts::default()));
    control.reload(&format!("{text}initial = \"down\"\n")).await;
    assert!(control.is_up("a"), "the present verdict counts, not the initial one");
    eventually("down", || !control.is_up("a")).await;
}

// If this fails, a backend in maintenance is probed, or its verdict lost.
#[tokio::test]
async fn maintenance_stops_probes_and_ready_resumes_them() {
    let (port, other) = (Port::closed().await, Port::open().await);
    let backends = [("a", port.address), ("b", other.address)];
    let control = Control::new(&config(&backends, HEALTH)).await;
    eventually("down", || !control.is_up("a")).await;
    control.backend("a").state.set_admin(AdminState::Maint, &Tally::default());
    let before = control.counts("a");
    // Absence has no event: the neighbour's probes tell that intervals have passed.
    results(&control, "b", 5).await;
    assert_eq!((control.counts("a"), control.is_up("a")), (before, false));
    control.backend("a").state.set_admin(AdminState::Ready, &Tally::default());
    results(&control, "a", 1).await;
}

// If this fails, an outage of many backends uses up the descriptors of sessions.
#[tokio::test]
async fn no_more_probes_run_at_once_than_may() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let names: Vec<String> = (1..=100).map(|number| format!("b{number}")).collect();
    let address = |number: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 2, number), port));
    let addresses: Vec<SocketAddr> = (1..=100).map(address).collect();
    let backends: Vec<(&str, SocketAddr)> =
        names.iter().map(String::as_str).zip(addresses).collect();
    let health = format!("{HEALTH}\nprobe = \"http\"");
    let control = Control::new(&config(&backends, &health)).await;
    let most = control.plane.sizes.probes();
    assert!(most < backends.len());
    // The kernel accepts, and no server answers.
    eventually("all that may run do", || control.prober.at_once.available_permits() == 0).await;
    let is_asked = |name: &String| control.counts(name).failed > 0;
    eventually("each has its turn", || names.iter().all(is_asked)).await;
}

// If this fails, a short outage or one lost probe moves clients.
#[tokio::test]
async fn fewer_failures_than_fall_change_nothing() {
    let mut port = Port::open().await;
    let control =
        Control::new(&config(&[("a", port.address)], &format!("{HEALTH}\nfall = 1000"))).await;
    for _ in 0..3 {
        results(&control, "a", 2).await;
        port.open = None;
        let failed = control.counts("a").failed;
        eventually("a failure", || control.counts("a").failed > failed).await;
        port.open = Some(TcpListener::bind(port.address).await.unwrap());
        let passed = control.counts("a").passed;
        eventually("a pass", || control.counts("a").passed > passed).await;
    }
    assert!(control.is_up("a"));
    assert_eq!(control.reason("a").unwrap(), "probe passed");
}

// If this fails, `status` says "not probed yet" of a backend that has been up for weeks.
#[tokio::test]
async fn the_first_result_explains_the_verdict() {
    let (live, mut dead) = (Port::open().await, Port::closed().await);
    let backends = [("live", live.address), ("dead", dead.address)];
    let control = Control::new(&config(&backends, &format!("{HEALTH}\nfall = 1000"))).await;
    eventually("results", || control.reason("live").is_some() && control.reason("dead").is_some())
        .await;
    assert_eq!(control.reason("live").unwrap(), "probe passed");
    assert_eq!(control.reason("dead").unwrap(), "probe failed: connect refused");
    assert!(control.is_up("live") && control.is_up("dead"));
    dead.open = Some(TcpListener::bind(dead.address).await.unwrap());
    eventually("a pass", || control.reason("dead").unwrap() == "probe passed").await;
}
