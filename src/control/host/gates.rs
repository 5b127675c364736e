//! Makes the gates of listeners: maps and programs of the kernel, for the limits that can have one.
//!
//! The maps are made when the first limit needs them. A listener whose limits stay keeps its gate
//! with all entries; one of whose limits changes gets another, with marks that no entry has, so
//! that nothing of the old limit is refused any more once it stands before the addresses.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::{Config, KernelRefusal, KeyPath, ListenerConfig, gate_obstacle};
use crate::control::host::listeners::ListenFailure;
use crate::policy::balance::hash::Prefix;
use crate::shared::{Address, Gate, GateCount, GateKernel, Listener, Refusing, Snapshot};
use crate::sys::gate::{GateCode, GateKey, GateMaps, GatePlan, GateWatch};
use crate::sys::process;

/// Clients that all gates together refuse at once, about 100 bytes of the kernel each; others are
/// refused by workers.
const CLIENTS_MAX: u32 = 65_536;
/// Listeners with a gate, each with a program and a descriptor.
const GATES_MAX: usize = 1_024;
/// Limits whose refusals are counted, those of the latest reloads too.
const COUNTS_MAX: u32 = 32_768;
/// What lets a service have gates.
pub(crate) const REMEDY: &str = "run it as root or with CAP_BPF, and let it call bpf(2); \
                                 configs/kernel-refusal.conf is a drop-in for the systemd unit";

/// Makes gates.
#[derive(Debug)]
pub(crate) struct Gates {
    started: Instant,
    maps: Mutex<Option<Arc<ClockedMaps>>>,
    next_number: AtomicU32,
}

/// The maps, with the clock of the kernel.
#[derive(Debug)]
struct ClockedMaps {
    maps: GateMaps,
    /// When the clock of workers began, by that of the kernel.
    start: Duration,
}

/// What a listener gets.
#[derive(Debug, Default)]
pub(crate) struct ListenerGate {
    pub(crate) gate: Option<Arc<Gate>>,
    /// Of its limits, in their order.
    pub(crate) limits: Vec<Refusing>,
    /// Of those what a new gate counts.
    pub(crate) counts: Vec<Option<Arc<dyn GateCount>>>,
}

/// A limit that requires what cannot be.
#[derive(Debug)]
pub(crate) struct GateRefusal {
    /// Where the file requires it.
    pub(crate) key: KeyPath,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl From<GateRefusal> for ListenFailure {
    fn from(refusal: GateRefusal) -> Self {
        let GateRefusal { key, message, hint } = refusal;
        Self { key, message, hint, cause: io::ErrorKind::PermissionDenied.into() }
    }
}

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce<'a> {
    pub(crate) config: &'a Config,
    pub(crate) snapshot: &'a Snapshot,
}

/// What is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a Config,
    /// Of each listener an IP address whose socket all workers share, if it has one.
    pub(crate) shared: &'a [Option<Address>],
}

impl Gates {
    /// None yet. Workers count time from `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, maps: Mutex::default(), next_number: AtomicU32::new(1) }
    }

    /// Makes those of a configuration, in its order.
    ///
    /// # Errors
    /// With every limit that requires the kernel to refuse where it cannot.
    pub(crate) fn of(
        &self,
        wanted: Wanted<'_>,
        now: InForce<'_>,
    ) -> Result<Vec<ListenerGate>, Vec<GateRefusal>> {
        let Wanted { config, shared } = wanted;
        let (mut made, mut gates, mut refusals) = (Vec::new(), 0, Vec::new());
        for (position, listener) in config.listeners.iter().enumerate() {
            let before = before(listener, config, now);
            let maker = GateMaker { gates: self, listener, nat64: &config.global.nat64, before };
            let obstacle = match shared.get(position).and_then(Option::as_ref) {
                Some(address) => {
                    Some(format!("all workers share the socket of {address}, which systemd passed"))
                }
                None if gates >= GATES_MAX => {
                    Some(format!("{GATES_MAX} listeners before it have a gate, no more may"))
                }
                None => None,
            };
            let one = maker.made(obstacle);
            gates += usize::from(one.gate.is_some());
            refusals.extend(maker.refusals(&one));
            made.push(one);
        }
        if refusals.is_empty() { Ok(made) } else { Err(refusals) }
    }

    /// Calls `each` with every client that the kernel has refused since its entry was made: the
    /// mark, the client and how often.
    ///
    /// # Errors
    /// As bpf(2).
    pub(crate) fn for_each_refused(&self, mut each: impl FnMut(GateKey, u64)) -> io::Result<()> {
        let maps = self.maps.lock().clone();
        maps.map_or(Ok(()), |maps| maps.maps.for_each_refused(&mut each))
    }

    fn maps(&self) -> Result<Arc<ClockedMaps>, String> {
        let mut known = self.maps.lock();
        if let Some(maps) = &*known {
            return Ok(Arc::clone(maps));
        }
        let maps = GateMaps::new(CLIENTS_MAX, COUNTS_MAX).map_err(|error| no_maps(&error))?;
        // Read first: an entry may end a moment too early, never too late.
        let now = process::kernel_time();
        let start = now.saturating_sub(self.started.elapsed());
        Ok(Arc::clone(known.insert(Arc::new(ClockedMaps { maps, start }))))
    }

    fn number(&self) -> u32 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Why there are no gates in this process.
fn no_maps(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) if process::may_load_programs() => {
            "bpf(2) is kept from this process, by a filter of system calls or by its control group"
                .to_owned()
        }
        Some(Errno::PERM) => NO_CAPABILITY.to_owned(),
        _ => format!("the kernel makes no map for a gate: {error}"),
    }
}

/// What a process lacks that may not load programs.
pub(crate) const NO_CAPABILITY: &str = "this process has no CAP_BPF";

/// The listener before, if its gate may serve the new configuration, too.
fn before<'a>(new: &ListenerConfig, config: &Config, now: InForce<'a>) -> Option<&'a Listener> {
    let configured = now.config.listeners.iter().find(|old| old.name == new.name)?;
    let is_same = configured.limits == new.limits && now.config.global.nat64 == config.global.nat64;
    let mut listeners = now.snapshot.open_listeners().filter(|_| is_same);
    listeners.find(|old| old.name == new.name).map(|listener| &**listener)
}

/// Makes the gate of one listener.
struct GateMaker<'a> {
    gates: &'a Gates,
    listener: &'a ListenerConfig,
    nat64: &'a [Ipv6Net],
    before: Option<&'a Listener>,
}

impl GateMaker<'_> {
    /// `obstacle`: why it can have none.
    fn made(&self, obstacle: Option<String>) -> ListenerGate {
        let limits = self.listener.limits.iter();
        let obstacles: Vec<Option<String>> = limits
            .map(|limit| gate_obstacle(self.listener, limit).or_else(|| obstacle.clone()))
            .collect();
        if obstacles.iter().all(Option::is_some) {
            return without_gate(&obstacles, "");
        }
        self.kept(&obstacles).unwrap_or_else(|| {
            self.new_gate(&obstacles).unwrap_or_else(|why| without_gate(&obstacles, &why))
        })
    }

    /// The gate that it has, if it is for the same limits.
    fn kept(&self, obstacles: &[Option<String>]) -> Option<ListenerGate> {
        let gate = self.before?.gate.clone()?;
        let limits: Vec<Refusing> =
            self.before?.limits.iter().map(|limit| limit.refusing.clone()).collect();
        let is_same = limits.iter().zip(obstacles).all(|(refusing, obstacle)| {
            matches!(refusing, Refusing::InKernel { .. }) == obstacle.is_none()
        });
        is_same.then(|| ListenerGate { gate: Some(gate), limits, counts: Vec::new() })
    }

    fn new_gate(&self, obstacles: &[Option<String>]) -> Result<ListenerGate, String> {
        let maps = self.gates.maps()?;
        let translators = self.nat64.iter().map(|net| (net.network(), net.prefix_len()));
        let mut plan = GatePlan { watches: Vec::new(), translators: translators.collect() };
        let mut numbers = Vec::new();
        for (limit, obstacle) in self.listener.limits.iter().zip(obstacles) {
            let number = self.gates.number();
            numbers.push(number);
            if obstacle.is_none() {
                let Prefix { v4, v6 } = limit.key;
                plan.watches.push(GateWatch { mark: number, slot: number, v4, v6 });
            }
        }
        let code = maps.maps.code(&plan).map_err(|error| no_gate(&error))?;
        let slots = plan.watches.iter().map(|watch| SlotCount::new(&maps, watch.slot));
        let counts: Vec<Arc<SlotCount>> =
            slots.collect::<io::Result<_>>().map_err(|error| no_gate(&error))?;
        let kernel = KernelGate { maps, code, counts: counts.clone() };
        let gate = Arc::new(Gate::new(Box::new(kernel)));
        let limits = numbers.iter().zip(obstacles);
        let limits = limits.map(|(mark, obstacle)| match obstacle {
            None => Refusing::InKernel { gate: Arc::clone(&gate), mark: *mark },
            Some(why) => Refusing::InWorkers(why.as_str().into()),
        });
        let mut counts = counts.into_iter();
        let counts = obstacles.iter().map(|obstacle| {
            let count = if obstacle.is_none() { counts.next() } else { None };
            count.map(|count| count as Arc<dyn GateCount>)
        });
        Ok(ListenerGate { limits: limits.collect(), counts: counts.collect(), gate: Some(gate) })
    }

    /// The limits that require the kernel, and do not get it.
    fn refusals(&self, made: &ListenerGate) -> Vec<GateRefusal> {
        let Self { listener, .. } = self;
        let limits = listener.limits.iter().zip(&made.limits).enumerate();
        let required = limits.filter(|(_, (it, _))| it.kernel_refusal == KernelRefusal::Require);
        let key = |place| limit_key(listener, place).key("kernel_refusal");
        required
            .filter_map(|(place, (limit, refusing))| {
                let why = refusing.why_not()?;
                let name = &limit.name;
                let message = format!("the kernel cannot refuse for the limit `{name}`: {why}");
                Some(GateRefusal { key: key(place), message, hint: REMEDY.to_owned() })
            })
            .collect()
    }
}

/// Where a limit of a listener stands in the file.
pub(crate) fn limit_key(listener: &ListenerConfig, place: usize) -> KeyPath {
    let limit = KeyPath::listener(&listener.name).key("limit");
    if listener.limits.len() > 1 { limit.item(place) } else { limit }
}

fn no_gate(error: &io::Error) -> String {
    format!("the kernel loads no gate: {error}")
}

/// `why` holds for all that have no obstacle of their own.
fn without_gate(obstacles: &[Option<String>], why: &str) -> ListenerGate {
    let said = |obstacle: &Option<String>| obstacle.clone().unwrap_or_else(|| why.to_owned());
    let limits = obstacles.iter().map(|obstacle| Refusing::InWorkers(said(obstacle).into()));
    ListenerGate { gate: None, limits: limits.collect(), counts: Vec::new() }
}

/// A gate in the kernel.
#[derive(Debug)]
struct KernelGate {
    maps: Arc<ClockedMaps>,
    code: GateCode,
    counts: Vec<Arc<SlotCount>>,
}

impl GateKernel for KernelGate {
    fn put_before(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.code.put_before(socket)
    }

    fn enter(&self, mark: u32, client: IpAddr, until_us: u64) {
        let until = self.maps.start.saturating_add(Duration::from_micros(until_us));
        // Without an entry workers refuse.
        let _full = self.maps.maps.enter(gate_key(mark, client), until);
    }

    fn forget(&self, mark: u32, client: IpAddr) {
        // Fails for no key of the right size.
        let _gone = self.maps.maps.forget(gate_key(mark, client));
    }
}

impl Drop for KernelGate {
    /// No worker uses it any more, and another has taken its place.
    fn drop(&mut self) {
        self.counts.iter().for_each(|count| count.finish());
    }
}

fn gate_key(mark: u32, client: IpAddr) -> GateKey {
    let address = match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    GateKey { mark, address }
}

/// What a gate has refused for one limit.
#[derive(Debug)]
struct SlotCount {
    maps: Arc<ClockedMaps>,
    slot: u32,
    /// The number, once the gate is gone.
    last: OnceLock<u64>,
}

impl SlotCount {
    fn new(maps: &Arc<ClockedMaps>, slot: u32) -> io::Result<Arc<Self>> {
        maps.maps.count(slot)?;
        Ok(Arc::new(Self { maps: Arc::clone(maps), slot, last: OnceLock::new() }))
    }

    fn finish(&self) {
        // Fails for no key of the right size.
        let last = self.maps.maps.refused(self.slot).unwrap_or(0);
        let _once = self.last.set(last);
        let _gone = self.maps.maps.stop_counting(self.slot);
    }
}

impl GateCount for SlotCount {
    fn value(&self) -> u64 {
        let now = self.maps.maps.refused(self.slot).unwrap_or(0);
        // Afterwards: it may have ended meanwhile, which leaves nothing in the map.
        self.last.get().copied().unwrap_or(now)
    }

    fn is_final(&self) -> bool {
        self.last.get().is_some()
    }
}
