//! The side of the new process: it takes what it is passed, says when it is ready, and accepts when
//! it is told to. Where it cannot serve, it says why and ends.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::getppid;

use crate::control::host::passed::PassedSockets;
use crate::control::run_error::{RunError, failed};
use crate::control::upgrade::latest::LatestState;
use crate::control::upgrade::manifest::{
    Manifest, PassedControl, PassedCount, PassedPage, PassedState,
};
use crate::control::upgrade::packets::{
    self, CALLED_BY, Call, HeirAnswer, LEFT_MAX, Opening, PROTOCOL, SESSIONS_FORM,
};
use crate::sys::channel::{Channel, ChannelPacket};
use crate::sys::{sealed, socket};

/// How long the process before may be silent: longer than it may be told to wait for this one. One
/// that ends is noticed at once.
const PATIENCE: Duration = Duration::from_secs(300);

/// The doors that the process before passes on.
#[derive(Debug, Default)]
pub(crate) struct PassedDoors {
    pub(crate) control: Option<(PassedControl, OwnedFd)>,
    pub(crate) page: Option<(PassedPage, OwnedFd)>,
}

/// This process, as long as it takes over from another.
#[derive(Debug)]
pub(crate) struct Successor {
    channel: Arc<Channel>,
    /// What was passed on and nothing has taken yet.
    pub(crate) sockets: PassedSockets,
    pub(crate) doors: PassedDoors,
    pub(crate) state: PassedState,
    pub(crate) count: Option<PassedCount>,
}

impl Successor {
    /// What another process has passed on to this one; `None` when this one was started otherwise.
    /// Blocks.
    ///
    /// # Errors
    /// When the other one is gone, or passes on what cannot be understood or held.
    pub(crate) fn called() -> Result<Option<Self>, RunError> {
        let Some(caller) = std::env::var_os(CALLED_BY) else { return Ok(None) };
        let refused = || failed("cannot take over from another process");
        let channel = Channel::from_stdin().map_err(refused())?;
        let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
        if parent.is_none_or(|parent| *parent != *caller) {
            let what = format!("{CALLED_BY} names no parent of this process");
            return Err(refused()(io::Error::new(ErrorKind::NotFound, what)));
        }
        match receive(&channel) {
            Ok(Received { sockets, doors, state, count }) => {
                Ok(Some(Self { channel: Arc::new(channel), sockets, doors, state, count }))
            }
            Err(error) => {
                refuse(&channel, &error.to_string());
                Err(refused()(error))
            }
        }
    }

    /// Tells the process before why this one will not serve.
    pub(crate) fn refuse(&self, error: &RunError) {
        refuse(&self.channel, error.to_string().trim_end());
    }

    /// Says that everything is open, and waits until this process is to begin. Gives what comes
    /// with that.
    pub(crate) fn ready(&self) -> impl FnOnce() -> io::Result<LatestState> + Send + use<> {
        let channel = Arc::clone(&self.channel);
        let sessions = if self.count.is_some() { SESSIONS_FORM } else { 0 };
        move || {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            packets::send(&channel, &HeirAnswer::Ready { version, sessions }, &[], patience())?;
            let packet = heard(&channel)?;
            match packets::said(&packet)? {
                Call::Begin => LatestState::read(packet.descriptors),
                _ => Err(io::Error::new(ErrorKind::InvalidData, "it spoke out of turn")),
            }
        }
    }

    /// Says that this process accepts, what it has left and opened; waits until the process before
    /// has let go. One that has ended meanwhile has let go, too. Gives the channel, by which its
    /// sessions come.
    pub(crate) fn accepting(
        self,
        left: Vec<u32>,
        accepting: HeirAnswer,
    ) -> impl FnOnce() -> io::Result<Arc<Channel>> + Send + use<> {
        move || {
            let channel = self.channel;
            for some in left.chunks(LEFT_MAX) {
                let left = HeirAnswer::Left { addresses: some.to_vec() };
                packets::send(&channel, &left, &[], patience())?;
            }
            packets::send(&channel, &accepting, &[], patience())?;
            match packets::said(&heard(&channel)?)? {
                Call::Lead => Ok(channel),
                _ => Err(io::Error::new(ErrorKind::InvalidData, "it spoke out of turn")),
            }
        }
    }
}

fn patience() -> Instant {
    Instant::now() + PATIENCE
}

fn refuse(channel: &Channel, reason: &str) {
    let reason: String = reason.chars().take(10_000).collect();
    // It may be gone itself.
    let _unheard = packets::send(channel, &HeirAnswer::Refused { reason }, &[], patience());
}

fn heard(channel: &Channel) -> io::Result<ChannelPacket> {
    let gone = || io::Error::new(ErrorKind::UnexpectedEof, "the process before has ended");
    channel.receive(patience())?.ok_or_else(gone)
}

/// Everything that was passed on.
struct Received {
    sockets: PassedSockets,
    doors: PassedDoors,
    state: PassedState,
    count: Option<PassedCount>,
}

fn receive(channel: &Channel) -> io::Result<Received> {
    let mut first = heard(channel)?;
    let Opening { protocol, version } = packets::said(&first)?;
    if protocol != PROTOCOL {
        let what = format!(
            "evenkeel {version} speaks protocol {protocol} of upgrades, and evenkeel {} speaks \
             {PROTOCOL}: restart instead",
            env!("CARGO_PKG_VERSION")
        );
        return Err(io::Error::new(ErrorKind::Unsupported, what));
    }
    let missing = || io::Error::new(ErrorKind::InvalidData, "a descriptor is missing");
    let described = sealed::read_sealed(first.descriptors.pop().ok_or_else(missing)?)?;
    let manifest: Manifest = serde_json::from_slice(&described)?;
    let Manifest { addresses, control, page, state, count } = manifest;
    let listening: usize = addresses.iter().map(|address| address.sockets).sum();
    let wanted = listening + usize::from(control.is_some()) + usize::from(page.is_some());
    let mut descriptors = Vec::new();
    while descriptors.len() < wanted {
        let packet = heard(channel)?;
        if packets::said::<Call>(&packet)? != Call::Sockets || packet.descriptors.is_empty() {
            return Err(missing());
        }
        let cookies = packet.descriptors.iter().map(|one| socket::cookie(one.as_fd()));
        let cookies = cookies.collect::<io::Result<_>>()?;
        descriptors.extend(packet.descriptors);
        packets::send(channel, &HeirAnswer::Taken { cookies }, &[], patience())?;
    }
    let mut descriptors = descriptors.into_iter();
    let sockets = PassedSockets::new(addresses, &mut descriptors)?;
    let control = control.map(|control| Ok((control, descriptors.next().ok_or_else(missing)?)));
    let page = page.map(|page| Ok((page, descriptors.next().ok_or_else(missing)?)));
    let doors = PassedDoors {
        control: control.transpose().map_err(|error: io::Error| error)?,
        page: page.transpose().map_err(|error: io::Error| error)?,
    };
    Ok(Received { sockets, doors, state, count })
}
