//! Whatever reloads, verdicts and operators do in any order: what is kept for all backends agrees
//! with a look at each of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::config::Config;
use crate::control::plane::overrides::{Override, Overrides, admin_by_file};
use crate::control::plane::state::Plane;
use crate::control::reload::publish::{compiled, publish};
use crate::control::watch::panic::judge_pool;
use crate::control::watch::verdict::set_verdict;
use crate::policy::health::pool_health::PoolHealth;
use crate::policy::health::rise_fall::Belief;
use crate::shared::{AdminState, Backend, Pool, Snapshot, Symptom};

const POOLS: usize = 3;
const BACKENDS: usize = 4;

/// One backend of a file.
#[derive(Debug, Clone)]
struct FileBackend {
    weight: u32,
    backup: bool,
    drain: bool,
}

/// One pool of a file.
#[derive(Debug, Clone)]
struct FilePool {
    /// Down until probed, up until probed, not probed.
    health: Option<bool>,
    outlier: bool,
    backends: [Option<FileBackend>; BACKENDS],
}

#[derive(Debug, Clone)]
enum Step {
    Reload([Option<FilePool>; POOLS]),
    /// An operator sets a weight, which compiles, or a state.
    Weight(usize, usize, u32),
    Admin(usize, usize, AdminState),
    Verdict(usize, usize, bool),
    /// Sessions fail until the backend is ejected or its pool cannot spare it.
    Fail(usize, usize),
}

fn file() -> impl Strategy<Value = [Option<FilePool>; POOLS]> {
    let backend = (0..3_u32, any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(weight, backup, drain)| FileBackend { weight, backup, drain });
    let backends = prop::array::uniform4(prop::option::weighted(0.7, backend));
    let health = prop::option::weighted(0.7, any::<bool>());
    let pool = (health, any::<bool>(), backends).prop_map(|(health, outlier, backends)| FilePool {
        health,
        outlier,
        backends,
    });
    prop::array::uniform3(prop::option::weighted(0.8, pool))
}

fn step() -> impl Strategy<Value = Step> {
    let (pool, backend) = (0..POOLS, 0..BACKENDS);
    let which = (pool, backend);
    let admin = prop::sample::select(vec![AdminState::Ready, AdminState::Drain, AdminState::Maint]);
    prop_oneof![
        2 => file().prop_map(Step::Reload),
        1 => (which.clone(), 0..3_u32).prop_map(|((p, b), weight)| Step::Weight(p, b, weight)),
        2 => (which.clone(), admin).prop_map(|((p, b), admin)| Step::Admin(p, b, admin)),
        6 => (which.clone(), any::<bool>()).prop_map(|((p, b), up)| Step::Verdict(p, b, up)),
        3 => which.prop_map(|(p, b)| Step::Fail(p, b)),
    ]
}

fn parsed(file: &[Option<FilePool>; POOLS]) -> Config {
    // A listener has to have a pool.
    let mut text = "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"always\"\n\
                    [pool.always]\nbackends = [\"127.0.0.1:2\"]\n"
        .to_owned();
    for (number, pool) in file.iter().enumerate() {
        let Some(FilePool { health, outlier, backends }) = pool else { continue };
        write!(text, "[pool.p{number}]\nbalance = \"round-robin\"\nbackends = [").unwrap();
        for (number, backend) in backends.iter().enumerate() {
            let Some(FileBackend { weight, backup, drain }) = backend else { continue };
            write!(
                text,
                "{{ name = \"b{number}\", address = \"127.0.1.{number}:1\", weight = {weight}, \
                 backup = {backup}, drain = {drain} }}, "
            )
            .unwrap();
        }
        text.push_str("]\n");
        if let Some(up) = health {
            let initial = if *up { "up" } else { "down" };
            writeln!(text, "health = {{ probe = \"tcp\", initial = \"{initial}\" }}").unwrap();
        }
        if *outlier {
            writeln!(text, "outlier = {{ consecutive_failures = 3, max_ejected = \"100%\" }}")
                .unwrap();
        }
    }
    let parsed = crate::config::parse(&text, Path::new("a.toml"));
    parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.problems))
}

/// A plane with what operators have set.
struct Control {
    plane: Arc<Plane>,
    overrides: Overrides,
}

impl Control {
    async fn put_in_force(&self, config: Config) {
        let next = compiled(&self.plane, &config, &[Vec::new()], &self.overrides, &[]).unwrap();
        publish(&self.plane, next).await;
        self.plane.current.lock().config = Arc::new(config);
    }

    fn find(&self, pool: usize, backend: usize) -> Option<(Arc<Pool>, Arc<Backend>)> {
        let (snapshot, name) = (self.plane.publisher.latest(), format!("p{pool}"));
        let pool = snapshot.pools.iter().flatten().find(|one| one.name == name)?;
        let name = format!("b{backend}");
        let backend = pool.backends().find(|one| one.name == name)?;
        Some((Arc::clone(pool), Arc::clone(backend)))
    }

    fn set(&mut self, pool: &Pool, backend: &Backend, set: impl Fn(&mut Override)) {
        set(self.overrides.entry((pool.name.clone(), backend.name.clone())).or_default());
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Reload(file) => self.put_in_force(parsed(&file)).await,
            Step::Weight(pool, backend, weight) => {
                let Some((pool, backend)) = self.find(pool, backend) else { return };
                self.set(&pool, &backend, |set| set.weight = Some(weight));
                let config = Config::clone(&self.plane.current.lock().config);
                self.put_in_force(config).await;
            }
            Step::Admin(pool, backend, admin) => {
                let Some((pool, backend)) = self.find(pool, backend) else { return };
                self.set(&pool, &backend, |set| set.admin = Some(admin));
                backend.state.set_admin(admin, &pool.state.tally);
                judge_pool(&self.plane, &pool);
            }
            Step::Verdict(pool, backend, up) => {
                let Some((pool, backend)) = self.find(pool, backend) else { return };
                let config = Arc::clone(&self.plane.current.lock().config);
                let mut probed = config.pools.iter().filter(|one| one.health.is_some());
                if !probed.any(|one| one.name == pool.name) {
                    return;
                }
                set_verdict(&self.plane, &backend, up, "a test");
            }
            Step::Fail(pool, backend) => {
                let Some((pool, backend)) = self.find(pool, backend) else { return };
                (0..3).for_each(|_| backend.state.failure_evidence.failed(Symptom::Reset));
                pool.eject_if_outlier(&backend);
            }
        }
    }

    fn agrees(&self) {
        let snapshot = self.plane.publisher.latest();
        for pool in snapshot.pools.iter().flatten() {
            assert_eq!(pool.health(), walked(pool), "pool {}", pool.name);
        }
        let config = Arc::clone(&self.plane.current.lock().config);
        for pool in &config.pools {
            for backend in &pool.backends {
                let built = built(&snapshot, &pool.name, &backend.name);
                let set = self.overrides.get(&(pool.name.clone(), backend.name.clone()));
                let admin = set.and_then(|set| set.admin).unwrap_or(admin_by_file(backend));
                assert_eq!(built.state.admin(), admin, "{}/{}", pool.name, backend.name);
                assert!(pool.health.is_some() || built.state.is_up(), "nothing probes it");
            }
        }
        let judged = snapshot.pools.iter().flatten().filter(|pool| pool.terms.outlier.is_some());
        let judged: HashSet<_> =
            judged.flat_map(|pool| pool.backends()).map(|one| Arc::as_ptr(&one.state)).collect();
        let book = self.plane.outliers.judged.lock();
        let kept: HashSet<_> = book.values().map(|known| Arc::as_ptr(&known.state)).collect();
        assert_eq!(kept, judged, "who is judged");
    }
}

fn built(snapshot: &Snapshot, pool: &str, name: &str) -> Arc<Backend> {
    let pools = snapshot.pools.iter().flatten();
    let mut found = pools.flat_map(|one| one.backends());
    let is_it = |one: &&Arc<Backend>| one.pool_name == pool && one.name == name;
    found.find(is_it).cloned().unwrap()
}

fn walked(pool: &Pool) -> PoolHealth {
    let mut health = PoolHealth::default();
    for backend in pool.backends().filter(|backend| backend.is_wanted()) {
        let is_healthy = backend.state.is_healthy();
        health.total += 1;
        health.healthy += usize::from(is_healthy);
        health.healthy_backups += usize::from(is_healthy && backend.backup);
        health.unjudged += usize::from(backend.state.belief() == Belief::Unjudged);
        health.ejected += usize::from(backend.state.is_ejected());
    }
    health
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // If this fails, a reload or a verb leaves a backend uncounted, counted twice, judged by an old
    // table, or drained against the file: panic and ejections are then decided by wrong numbers.
    #[test]
    fn what_is_kept_agrees_with_a_look_at_every_backend(
        first in file(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plane = Arc::new(Plane::without_workers(parsed(&first)));
            let mut control = Control { plane, overrides: Overrides::new() };
            control.put_in_force(parsed(&first)).await;
            control.agrees();
            for step in steps {
                control.take(step).await;
                control.agrees();
            }
        });
    }
}
