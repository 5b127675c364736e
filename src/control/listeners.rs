//! Opening the sockets a configuration asks for, and keeping those it had already.
//!
//! Sockets are opened by the control plane, so that a failure is an answer to whoever asked, and
//! handed to the workers afterwards. An address that stays is never closed; port 0 keeps the port
//! the kernel chose.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::config;
use crate::policy::defects::{Defect, has};
use crate::sys::process;
use crate::sys::socket::{self, KeepaliveOptions, ListenOptions};
use crate::sys::systemd::Inherited;

/// Addresses that are listened on: as configured, and as they really are.
pub(crate) type Bound = HashMap<Asked, BoundAddress>;

/// An address as configured, and how often it came before: port 0 is another port each time.
pub(crate) type Asked = (SocketAddr, usize);

/// One address that is listened on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BoundAddress {
    pub(crate) real: SocketAddr,
    pub(crate) options: ListenOptions,
}

/// A socket for each worker on one address.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// What a configuration needs of sockets.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// All addresses of the configuration.
    pub(crate) bound: Bound,
    /// Real addresses of each listener, in the order of the configuration.
    pub(crate) addresses: Vec<Vec<SocketAddr>>,
    /// Sockets that were opened for it.
    pub(crate) opened: Vec<Opened>,
    /// Sockets that stay and get other options.
    pub(crate) retuned: Vec<BoundAddress>,
}

/// An address that could not be listened on.
#[derive(Debug)]
pub(crate) struct ListenFailure {
    /// Dotted path of its key.
    pub(crate) key: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
    /// Why, as the system has it.
    pub(crate) cause: io::Error,
}

/// The addresses of each listener, in the order of the configuration.
pub(crate) fn asked(config: &config::Config) -> Vec<Vec<Asked>> {
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    let mut count = |address: &SocketAddr| {
        let times = seen.entry(*address).or_default();
        *times += 1;
        (*address, *times - 1)
    };
    let listeners = config.listeners.iter();
    listeners.map(|listener| listener.bind.iter().map(&mut count).collect()).collect()
}

/// Opens what is new. On failure everything opened here is closed again.
pub(crate) fn plan(
    config: &config::Config,
    bound: &Bound,
    inherited: &mut Vec<Inherited>,
    workers: usize,
) -> Result<Plan, Vec<ListenFailure>> {
    let mut plan = Plan::default();
    let mut failures = Vec::new();
    for (listener, asked) in config.listeners.iter().zip(asked(config)) {
        let options = options_of(listener);
        let mut addresses = Vec::new();
        for (position, asked) in asked.into_iter().enumerate() {
            let key = format!("listener.{}.bind[{position}]", listener.name);
            match plan.add(asked, options, bound.get(&asked), (inherited, workers)) {
                Ok(real) => addresses.push(real),
                Err(failed) => failures.push(failed.place(key, asked.0)),
            }
        }
        plan.addresses.push(addresses);
    }
    if failures.is_empty() { Ok(plan) } else { Err(failures) }
}

enum Failed {
    Open(io::Error),
    Multipath,
}

impl Failed {
    fn place(self, key: String, address: SocketAddr) -> ListenFailure {
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
                hint: remedy(&error, address),
                cause: error,
            },
        }
    }
}

fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there; `ss -ltnp sport = :{}` shows which",
            address.port()
        ),
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
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; `ip address` lists those it has".into()
        }
        _ => "choose another address or port".into(),
    }
}

impl Plan {
    fn add(
        &mut self,
        asked: Asked,
        options: ListenOptions,
        known: Option<&BoundAddress>,
        (inherited, workers): (&mut Vec<Inherited>, usize),
    ) -> Result<SocketAddr, Failed> {
        if let Some(known) = known {
            if known.options.mptcp != options.mptcp {
                return Err(Failed::Multipath);
            }
            if has(Defect::BindAnew) {
                let sockets = socket::listen_beside(known.real, workers, &options);
                let sockets = sockets.map_err(Failed::Open)?;
                self.opened.push(Opened { address: known.real, sockets });
            }
            let kept = BoundAddress { real: known.real, options };
            if known.options != options {
                self.retuned.push(kept);
            }
            self.bound.insert(asked, kept);
            return Ok(kept.real);
        }
        let opened = open(asked.0, options, inherited, workers).map_err(Failed::Open)?;
        let real = opened.address;
        self.bound.insert(asked, BoundAddress { real, options });
        self.opened.push(opened);
        Ok(real)
    }
}

fn open(
    configured: SocketAddr,
    options: ListenOptions,
    inherited: &mut Vec<Inherited>,
    workers: usize,
) -> io::Result<Opened> {
    if let Some(position) = inherited.iter().position(|one| one.address == configured) {
        let socket = socket::adopt_listener(inherited.swap_remove(position).socket, &options)?;
        // systemd opened one socket: every worker accepts from its queue.
        let mut sockets =
            (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
        sockets.push(socket);
        return Ok(Opened { address: configured, sockets });
    }
    let sockets = socket::listen(configured, workers, &options)?;
    let address = match sockets.first() {
        Some(first) => socket::local_address(std::os::fd::AsFd::as_fd(first))?,
        None => configured,
    };
    Ok(Opened { address, sockets })
}

fn options_of(listener: &config::Listener) -> ListenOptions {
    ListenOptions {
        backlog: listener.backlog,
        keepalive: KeepaliveOptions {
            idle: listener.keepalive.idle,
            interval: listener.keepalive.interval,
            count: listener.keepalive.count,
        },
        user_timeout: listener.user_timeout,
        fast_open: listener.fast_open,
        defer_accept: listener.defer_accept,
        mptcp: listener.mptcp,
    }
}
