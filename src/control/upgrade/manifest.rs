//! What a process passes on, described: the order of its descriptors, and the state beside them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::host::passed::{ListeningPlace, PassedAddress};
use crate::control::host::socket_file::FileIdentity;
use crate::control::plane::doors::DoorKind;
use crate::control::plane::set_backends::{self, SetBackend};
use crate::control::plane::state::Plane;
use crate::control::upgrade::verdicts::{self, PassedVerdict};
use crate::shared::Address;
use crate::sys::process::kernel_time;

/// What is passed on. Descriptors come in the order of its fields.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) addresses: Vec<PassedAddress>,
    /// One descriptor, if there is one.
    pub(crate) control: Option<PassedControl>,
    /// One descriptor, if there is one.
    pub(crate) page: Option<PassedPage>,
    #[serde(default)]
    pub(crate) state: PassedState,
    /// Without it the next process takes no sessions.
    #[serde(default)]
    pub(crate) count: Option<PassedCount>,
}

/// What is passed on beside descriptors.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PassedState {
    /// What operators have set.
    pub(crate) set: Vec<SetBackend>,
    pub(crate) verdicts: Vec<PassedVerdict>,
}

/// From where the next process counts on, so that what sessions keep means the same there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassedCount {
    /// When the workers' clock began, in nanoseconds of CLOCK_MONOTONIC.
    clock_ns: u64,
    /// Above all numbers that sessions of this process have or will have.
    pub(crate) numbers_from: u64,
}

/// Numbers of sessions begin anew at a multiple of this in each process.
const NUMBERS: u64 = 1_000_000_000;
/// More sessions than begin during an upgrade.
const NUMBERS_SPARE: u64 = NUMBERS / 10;

impl PassedCount {
    fn of(plane: &Plane) -> Self {
        let workers = plane.workers.states.len() as u64;
        let numbered = plane.workers.states.iter().map(|state| state.numbered.value()).max();
        let highest = (numbered.unwrap_or_default() + 1).saturating_mul(workers);
        let clock = kernel_time().saturating_sub(plane.started.elapsed());
        Self {
            clock_ns: u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX),
            numbers_from: (highest + NUMBERS_SPARE).next_multiple_of(NUMBERS),
        }
    }

    /// When the clock began.
    pub(crate) fn clock_start(self) -> Option<Instant> {
        let age = kernel_time().checked_sub(Duration::from_nanos(self.clock_ns))?;
        Instant::now().checked_sub(age)
    }
}

/// The control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PassedControl {
    /// As the file names it.
    pub(crate) path: PathBuf,
    pub(crate) file: FileIdentity,
}

/// The read-only page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PassedPage {
    /// As the file names it.
    pub(crate) asked: SocketAddr,
}

/// A manifest with its descriptors.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) manifest: Manifest,
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
    /// Real addresses, in the order of the manifest.
    pub(crate) real: Vec<Address>,
    /// How many of the descriptors are listening sockets of workers.
    pub(crate) listening: usize,
}

impl Offer {
    /// Everything that this process has. No reload may run meanwhile.
    pub(crate) fn of(plane: &Plane) -> Self {
        let (mut addresses, mut real, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
        for ((asked, repeat), bound) in plane.current.lock().bound.clone() {
            let mut sockets: Vec<_> =
                bound.sockets.iter().filter_map(std::sync::Weak::upgrade).collect();
            sockets.truncate(if bound.is_shared { 1 } else { usize::MAX });
            let (Some(asked), Some(place)) =
                (ListeningPlace::of(&asked), ListeningPlace::of(&bound.real))
            else {
                continue;
            };
            addresses.push(PassedAddress {
                asked,
                repeat,
                real: place,
                is_multipath: bound.is_multipath(),
                is_shared: bound.is_shared,
                file: bound.file.as_ref().map(|file| file.identity()),
                sockets: sockets.len(),
            });
            real.push(bound.real);
            descriptors.extend(sockets);
        }
        let listening = descriptors.len();
        let state = PassedState {
            set: set_backends::written(&plane.current.lock().overrides),
            verdicts: verdicts::passed(plane),
        };
        let count = Some(PassedCount::of(plane));
        let mut manifest = Manifest { addresses, control: None, page: None, state, count };
        let mut doors = plane.doors.list();
        // The control socket first, as in the manifest.
        doors.sort_by_key(|(kind, _)| matches!(kind, DoorKind::Page(_)));
        for (kind, socket) in doors {
            match kind {
                DoorKind::Control(path, file) => {
                    manifest.control = Some(PassedControl { path, file: file.identity() });
                }
                DoorKind::Page(asked) => manifest.page = Some(PassedPage { asked }),
            }
            descriptors.push(socket);
        }
        Self { manifest, descriptors, real, listening }
    }
}
