//! The threads of the data plane: started, and waited for until they accept.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::control::host::sizing::Sizes;
use crate::control::log::Logging;
use crate::control::plane::state::Plane;
use crate::control::plane::workers::Workers;
use crate::control::run_error::{RunError, failed};
use crate::dataplane::{SCRATCH_BYTES, TurnBounds, WorkerHandle, WorkerSetup};
use crate::shared::{Publisher, WorkerState};
use crate::sys::process;

/// How long workers may take to register the sockets they were given.
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);

/// From where workers count.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountFrom {
    /// Time.
    pub(super) clock_start: Instant,
    /// Sessions.
    pub(super) numbers_from: u64,
}

/// Starts a thread for each worker of `sizes`.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start_workers(
    config: &Config,
    sizes: &Sizes,
    from: CountFrom,
    publisher: &Publisher,
    logging: &Logging,
) -> io::Result<Workers> {
    let count = sizes.workers;
    let cpus = if config.global.pin_workers { process::usable_cpus()? } else { Vec::new() };
    let pipes = sizes.pipe_share();
    let mut workers = Workers { handles: Vec::new(), states: Vec::new() };
    for number in 0..count {
        let state = Arc::new(WorkerState::default());
        workers.handles.push(WorkerHandle::start(WorkerSetup {
            number,
            workers: count,
            numbers_from: from.numbers_from,
            cpu: cpus.get(number % cpus.len().max(1)).copied(),
            spin: config.global.spin,
            pipes,
            scratch_bytes: SCRATCH_BYTES,
            bounds: TurnBounds::SERVING,
            start: from.clock_start,
            snapshot: publisher.subscribe(),
            state: Arc::clone(&state),
            log: logging.session_log(),
        })?);
        workers.states.push(state);
    }
    workers.introduce()?;
    Ok(workers)
}

/// Waits until the workers accept on this number of sockets.
///
/// # Errors
/// When a worker takes too long.
pub(super) async fn wait_until_served(plane: &Plane, wanted: u64) -> Result<(), RunError> {
    let deadline = Instant::now() + REGISTER_DEADLINE;
    while plane.workers.listening() < wanted {
        if Instant::now() > deadline {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            return Err(failed("cannot register the listening sockets")(source));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
