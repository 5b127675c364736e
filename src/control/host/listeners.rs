//! Opening the sockets a configuration asks for, and keeping those it had already.
//!
//! Sockets are opened by the control plane, so that a failure is an answer to the operator who
//! asked, and handed to the workers afterwards. An address that stays is never closed; port 0 keeps
//! the port the kernel chose.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;

use crate::config::{self, KeyPath};
use crate::shared::{Address, AddressRange};
use crate::sys::process;
use crate::sys::socket::{self, KeepaliveOptions, ListenOptions};
use crate::sys::systemd::{Inherited, InheritedAddress};
use crate::sys::unix;

use crate::control::host::passed::{GivenSockets, PassedOn};
use crate::control::host::socket_file::{self, SocketFile, directory_of};
use crate::control::log::sink::LogFailure;

/// Permissions of the file of a Unix socket: every user who can pass its directories may connect,
/// as every user may to a port.
const PERMISSIONS: u32 = 0o666;
/// What to do about `mptcp = true` on a host without it.
const WITHOUT_MULTIPATH: &str =
    "set net.mptcp.enabled = 1 (kernels have it from 5.6 on), or remove `mptcp`";

/// Addresses that are listened on: as configured, and as they really are.
pub(crate) type BoundAddresses = HashMap<AskedAddress, BoundAddress>;

/// An address as configured, and how often it came before: port 0 is another port each time.
pub(crate) type AskedAddress = (Address, usize);

/// One address that is listened on.
#[derive(Debug, Clone)]
pub(crate) struct BoundAddress {
    pub(crate) real: Address,
    pub(crate) options: ListenOptions,
    /// Of a Unix socket that was made here; removed with the last that holds it.
    pub(crate) file: Option<Arc<SocketFile>>,
    /// All of them are one socket.
    pub(crate) is_shared: bool,
    /// Those that workers have, as long as they have them, in the order of the workers.
    pub(crate) sockets: Vec<Weak<OwnedFd>>,
}

impl BoundAddress {
    /// Whether its sockets speak Multipath TCP.
    pub(crate) fn is_multipath(&self) -> bool {
        self.options.mptcp
    }
}

/// A socket for each worker on one address; after an upgrade to fewer workers, more than that.
#[derive(Debug)]
pub(crate) struct OpenedSockets {
    pub(crate) address: Address,
    pub(crate) sockets: Vec<Arc<OwnedFd>>,
    /// All of them are one socket.
    pub(crate) is_shared: bool,
    /// How many of them the process before this one has passed on.
    passed: usize,
    file: Option<Arc<SocketFile>>,
}

/// What a configuration needs of sockets.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// All addresses of the configuration.
    pub(crate) bound: BoundAddresses,
    /// Real addresses of each listener, in the order of the configuration.
    pub(crate) addresses: Vec<Vec<AddressRange>>,
    /// Sockets that were opened for it.
    pub(crate) opened: Vec<OpenedSockets>,
    /// Sockets that stay and get other options.
    pub(crate) retuned: Vec<BoundAddress>,
}

/// What this host does not grant: an address to listen on, or what else the file asks for.
#[derive(Debug)]
pub(crate) struct ListenFailure {
    /// Where the file names it.
    pub(crate) key: KeyPath,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
    /// Why, as the system has it.
    pub(crate) cause: io::Error,
}

impl ListenFailure {
    /// Of an IP address that is not listened on at all yet.
    pub(crate) fn new(key: KeyPath, address: SocketAddr, cause: io::Error) -> Self {
        OpenFailure::Open(cause).place(key, &Address::Ip(address), &BoundAddresses::new())
    }
}

impl From<LogFailure> for ListenFailure {
    fn from(failure: LogFailure) -> Self {
        let LogFailure { key, message, hint, cause } = failure;
        Self { key, message, hint, cause }
    }
}

/// What each listener accepts on, in the order of the configuration, with each of its addresses.
pub(crate) fn asked(config: &config::Config) -> Vec<Vec<(&AddressRange, Vec<AskedAddress>)>> {
    let mut seen: HashMap<Address, usize> = HashMap::new();
    let mut count = |address: Address| {
        let times = seen.entry(address.clone()).or_default();
        *times += 1;
        (address, *times - 1)
    };
    let mut all = Vec::new();
    for listener in &config.listeners {
        let ranges = listener.bind.iter();
        all.push(
            ranges.map(|range| (range, range.addresses().map(&mut count).collect())).collect(),
        );
    }
    all
}

/// Opens what is new.
///
/// # Errors
/// With the addresses that cannot be opened, of each range the first; what was opened here is
/// closed again then.
pub(crate) fn plan(
    config: &config::Config,
    bound: &BoundAddresses,
    given: &mut GivenSockets,
    workers: usize,
) -> Result<Plan, Vec<ListenFailure>> {
    let mut plan = Plan::default();
    let mut opener = Opener { given, workers };
    let mut failures = Vec::new();
    for (listener, asked) in config.listeners.iter().zip(asked(config)) {
        let options = options_of(listener);
        let mut addresses = Vec::new();
        for (position, (range, asked)) in asked.into_iter().enumerate() {
            let key = KeyPath::listener(&listener.name).key("bind").item(position);
            let mut first = None;
            for asked in asked {
                match plan.add(&asked, options, bound.get(&asked), &mut opener) {
                    Ok(real) => _ = first.get_or_insert(real),
                    Err(failed) => {
                        failures.push(failed.place(key, &asked.0, bound));
                        break;
                    }
                }
            }
            addresses.extend(first.map(|first| range.beginning_at(first)));
        }
        plan.addresses.push(addresses);
    }
    if failures.is_empty() { Ok(plan) } else { Err(failures) }
}

enum OpenFailure {
    Open(io::Error),
    Multipath,
}

impl OpenFailure {
    fn place(self, key: KeyPath, address: &Address, bound: &BoundAddresses) -> ListenFailure {
        match self {
            Self::Multipath => ListenFailure {
                key,
                message: format!("mptcp of {address} cannot change while it is listened on"),
                hint: "restart evenkeel to change it".into(),
                cause: io::ErrorKind::Unsupported.into(),
            },
            Self::Open(error) => ListenFailure {
                key,
                message: format!("cannot listen on {address}: {error}"),
                hint: match address {
                    Address::Ip(address) if error.kind() == io::ErrorKind::AddrInUse => {
                        remedy_in_use(*address, bound)
                    }
                    Address::Ip(address) => remedy(&error, *address),
                    Address::Host(_) => "give it a port".into(),
                    Address::Unix(path) => remedy_of_unix(&error, path),
                },
                cause: error,
            },
        }
    }
}

/// What has the address: a socket of ours that goes with this configuration, or another program.
fn remedy_in_use(address: SocketAddr, bound: &BoundAddresses) -> String {
    let mut own = bound.values().filter_map(|own| own.real.ip());
    match own.find(|own| config::is_in_the_way(*own, address)) {
        Some(own) => format!(
            "evenkeel itself listens on {own} until a reload has taken that away: take it away in \
             one reload and add {address} in the next, or restart"
        ),
        None => format!(
            "another program listens there; `ss -ltnp sport = :{}` shows which",
            address.port()
        ),
    }
}

fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < process::unprivileged_port_start() => {
            format!(
                "ports below {} are for root and for CAP_NET_BIND_SERVICE, which the systemd unit \
                 grants",
                process::unprivileged_port_start()
            )
        }
        io::ErrorKind::PermissionDenied => {
            "a security policy of this host forbids it; its audit log tells which".into()
        }
        io::ErrorKind::AddrNotAvailable => to_listen_before_it_is_here(address.ip()),
        _ if is_without_multipath(error) => WITHOUT_MULTIPATH.into(),
        _ => "choose another address or port".into(),
    }
}

/// What to do about an address that this host does not have.
pub(crate) fn to_listen_before_it_is_here(address: IpAddr) -> String {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!(
        "`freebind = true` of the listener, or net.{family}.ip_nonlocal_bind = 1, lets evenkeel \
         listen before the address is here; `ip address` shows those that are"
    )
}

/// What socket(2) says of Multipath TCP where the kernel lacks it or has it switched off.
fn is_without_multipath(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PROTONOSUPPORT | Errno::NOPROTOOPT))
}

fn remedy_of_unix(error: &io::Error, path: &Path) -> String {
    let directory = directory_of(path).display();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process listens there; `ss -xlp src {}` shows which", path.display())
        }
        io::ErrorKind::AlreadyExists => "move that file away, or choose another path".into(),
        io::ErrorKind::NotFound => {
            format!("make the directory {directory}; /run/evenkeel is there under the systemd unit")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "this user may not make files in {directory}; it may in /run/evenkeel under the \
             systemd unit"
        ),
        _ => "choose another path".into(),
    }
}

impl From<&InheritedAddress> for Address {
    fn from(address: &InheritedAddress) -> Self {
        match address {
            InheritedAddress::Ip(address) => Self::Ip(*address),
            InheritedAddress::Unix(path) => Self::Unix(Arc::from(path.as_path())),
        }
    }
}

/// Unix sockets whose file was removed or replaced: they listen, and no client reaches them.
pub(crate) fn lost_files(bound: &BoundAddresses) -> impl Iterator<Item = &Address> {
    let is_lost = |file: &Arc<SocketFile>| !file.is_there();
    bound.values().filter(move |it| it.file.as_ref().is_some_and(is_lost)).map(|it| &it.real)
}

/// Of each listener an IP address whose socket all workers share, if it has one.
pub(crate) fn shared_sockets(
    config: &config::Config,
    bound: &BoundAddresses,
) -> Vec<Option<Address>> {
    let is_shared = |asked: &AskedAddress| {
        let known = bound.get(asked).filter(|known| known.is_shared && !known.real.is_unix());
        known.map(|known| known.real.clone())
    };
    let listeners = asked(config).into_iter();
    listeners.map(|ranges| ranges.iter().flat_map(|(_, asked)| asked).find_map(is_shared)).collect()
}

/// Removes the files of all Unix sockets; clients that have connected are still served.
pub(crate) fn remove_files(bound: &BoundAddresses) {
    for file in bound.values().filter_map(|it| it.file.as_ref()) {
        file.remove();
    }
}

impl Plan {
    fn add(
        &mut self,
        asked: &AskedAddress,
        options: ListenOptions,
        known: Option<&BoundAddress>,
        opener: &mut Opener<'_>,
    ) -> Result<Address, OpenFailure> {
        if let Some(known) = known {
            if known.options.mptcp != options.mptcp && !known.real.is_unix() {
                return Err(OpenFailure::Multipath);
            }
            let kept = BoundAddress { options, ..known.clone() };
            let real = kept.real.clone();
            if known.options != options {
                self.retuned.push(kept.clone());
            }
            self.bound.insert(asked.clone(), kept);
            return Ok(real);
        }
        let opened = match opener.given.passed.take(&asked.0, asked.1) {
            Some(passed) => opener.adopt(passed, options)?,
            None => opener.open(&asked.0, options).map_err(OpenFailure::Open)?,
        };
        let real = opened.address.clone();
        let bound = BoundAddress {
            real: real.clone(),
            options,
            file: opened.file.clone(),
            is_shared: opened.is_shared,
            sockets: opened.sockets.iter().map(Arc::downgrade).collect(),
        };
        if opened.passed > 0 {
            // The process before goes on with its options if the upgrade fails.
            self.retuned.push(bound.clone());
        }
        self.bound.insert(asked.clone(), bound);
        self.opened.push(opened);
        Ok(real)
    }
}

impl OpenedSockets {
    /// How many sockets were made anew.
    pub(crate) fn made(&self) -> u64 {
        let all = if self.is_shared { 1 } else { self.sockets.len() };
        all.saturating_sub(self.passed) as u64
    }

    fn of_tcp(address: SocketAddr, sockets: Vec<OwnedFd>) -> Self {
        Self {
            address: Address::Ip(address),
            sockets: sockets.into_iter().map(Arc::new).collect(),
            is_shared: false,
            passed: 0,
            file: None,
        }
    }

    /// One socket, from whose queue every worker accepts.
    fn shared(
        address: &Address,
        socket: OwnedFd,
        file: Option<Arc<SocketFile>>,
        workers: usize,
    ) -> io::Result<Self> {
        let copies = (1..workers).map(|_| socket.try_clone());
        let mut sockets = copies.collect::<io::Result<Vec<_>>>()?;
        sockets.push(socket);
        Ok(Self {
            address: address.clone(),
            sockets: sockets.into_iter().map(Arc::new).collect(),
            is_shared: true,
            passed: 0,
            file,
        })
    }
}

/// What new sockets are made from.
struct Opener<'a> {
    /// Sockets that were open before and that no listener has taken yet.
    given: &'a mut GivenSockets,
    workers: usize,
}

impl Opener<'_> {
    /// Takes sockets over as they are: their queues stay, and their options until the process
    /// before has let go of them. Where workers have become more, adds sockets.
    fn adopt(
        &self,
        passed: PassedOn,
        options: ListenOptions,
    ) -> Result<OpenedSockets, OpenFailure> {
        let real = passed.address.real.address();
        if passed.address.is_multipath != options.mptcp && !real.is_unix() {
            return Err(OpenFailure::Multipath);
        }
        let file = passed.file();
        let is_shared = passed.address.is_shared;
        let mut sockets = passed.sockets;
        let count = sockets.len();
        let opened = match real {
            Address::Ip(address) if !is_shared => {
                let missing = self.workers.saturating_sub(sockets.len());
                let more = socket::listen_beside(address, missing, &options);
                sockets.extend(more.map_err(OpenFailure::Open)?);
                OpenedSockets::of_tcp(address, sockets)
            }
            real => {
                let lost = || OpenFailure::Open(io::ErrorKind::InvalidData.into());
                let socket = sockets.pop().ok_or_else(lost)?;
                OpenedSockets::shared(&real, socket, file, self.workers)
                    .map_err(OpenFailure::Open)?
            }
        };
        Ok(OpenedSockets { passed: count, ..opened })
    }

    fn open(&mut self, configured: &Address, options: ListenOptions) -> io::Result<OpenedSockets> {
        let is_it = |one: &Inherited| Address::from(&one.address) == *configured;
        let inherited = &mut self.given.inherited;
        if let Some(position) = inherited.iter().position(is_it) {
            let socket = inherited.swap_remove(position).socket;
            let socket = match configured {
                Address::Ip(_) | Address::Host(_) => socket::adopt_listener(socket, &options)?,
                Address::Unix(_) => unix::adopt_listener(socket, options.backlog)?,
            };
            // Its file, if it has one, is systemd's.
            return OpenedSockets::shared(configured, socket, None, self.workers);
        }
        match configured {
            Address::Ip(address) => {
                let sockets = socket::listen(*address, self.workers, &options)?;
                let real = sockets.first().map(|first| socket::local_address(first.as_fd()));
                Ok(OpenedSockets::of_tcp(real.transpose()?.unwrap_or(*address), sockets))
            }
            // `bind` holds none.
            Address::Host(_) => Err(io::ErrorKind::InvalidInput.into()),
            Address::Unix(path) => {
                let bind = || unix::listen(path, PERMISSIONS, options.backlog);
                let (socket, file) = socket_file::make(path, bind)?;
                OpenedSockets::shared(configured, socket, Some(Arc::new(file)), self.workers)
            }
        }
    }
}

/// The kernel sends no keepalive while sent bytes are unacknowledged: without this bound a
/// connection to a client that is gone lasts until `idle_timeout` then. Sockets of Multipath TCP
/// have none.
fn user_timeout(listener: &config::ListenerConfig) -> Option<Duration> {
    let derived = || (!listener.mptcp).then(|| listener.terms.keepalive.patience());
    listener.terms.user_timeout.or_else(derived)
}

fn options_of(listener: &config::ListenerConfig) -> ListenOptions {
    ListenOptions {
        backlog: listener.backlog,
        keepalive: KeepaliveOptions {
            idle: listener.terms.keepalive.idle,
            interval: listener.terms.keepalive.interval,
            count: listener.terms.keepalive.count,
        },
        user_timeout: user_timeout(listener),
        fast_open: listener.fast_open,
        defer_accept: listener.defer_accept,
        mptcp: listener.mptcp,
        freebind: listener.freebind,
    }
}

/// The bit of `net.ipv4.tcp_fastopen` that lets listening sockets accept data in the SYN.
const FAST_OPEN_SERVERS: u64 = 2;

/// An option of a listener that has no effect on this host, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakenAway {
    /// The key that asks for it.
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// What the kernel's switches take away from a listener; `sysctl` reads one.
pub(crate) fn taken_away(
    listener: &config::ListenerConfig,
    sysctl: impl Fn(&str) -> Option<u64>,
) -> Vec<TakenAway> {
    let options = options_of(listener);
    let mut found = Vec::new();
    let mut say = |key, message: String, hint: String| found.push(TakenAway { key, message, hint });
    let fast_open = sysctl("net/ipv4/tcp_fastopen").filter(|bits| bits & FAST_OPEN_SERVERS == 0);
    if let Some(bits) = fast_open.filter(|_| options.fast_open) {
        let message = format!(
            "`fast_open` has no effect on this host: net.ipv4.tcp_fastopen = {bits} lets clients \
             use it and not servers"
        );
        say(
            "fast_open",
            message,
            format!("set net.ipv4.tcp_fastopen = {}", bits | FAST_OPEN_SERVERS),
        );
    }
    if options.mptcp && sysctl("net/mptcp/enabled") != Some(1) {
        let message = "this host has no Multipath TCP: the listener will not open".to_owned();
        say("mptcp", message, WITHOUT_MULTIPATH.to_owned());
    }
    if options.mptcp && options.user_timeout.is_some() {
        let message = "`user_timeout` has no effect on clients that speak Multipath TCP: the \
                       kernel refuses it for them";
        let hint = "use `keepalive`, which they have; other clients and the backends get both";
        say("user_timeout", message.to_owned(), hint.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, an option that the host has switched off is taken to work, or one that works
    // is warned of.
    #[test]
    fn switches_of_the_host_are_named() {
        let text = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\nfast_open = true\n\
                    mptcp = true\nuser_timeout = \"9s\"\n[listener.b]\nbind = [\"127.0.0.1:2\"]\n\
                    pool = \"p\"\n[pool.p]\nbackends = [\"127.0.0.1:3\"]\n";
        let config = config::parse(text, Path::new("a.toml")).config.unwrap();
        let cases: [(Option<u64>, Option<u64>, &[&str]); 3] = [
            (Some(3), Some(1), &["user_timeout"]),
            (Some(1), Some(0), &["fast_open", "mptcp", "user_timeout"]),
            (None, None, &["mptcp", "user_timeout"]),
        ];
        for (fast_open, mptcp, expected) in cases {
            let sysctl = |name: &str| match name {
                "net/ipv4/tcp_fastopen" => fast_open,
                _ => mptcp,
            };
            let [asks, plain] = [0, 1].map(|index| taken_away(&config.listeners[index], sysctl));
            let keys: Vec<&str> = asks.iter().map(|taken| taken.key).collect();
            assert_eq!((keys, plain), (expected.to_vec(), Vec::new()));
        }
    }
}
