//! Faults of system calls: strace stands between one worker and the kernel, for a while.
//!
//! LD_PRELOAD would not do: evenkeel calls the kernel without libc. strace is attached to a thread
//! that runs, and detached again, so that "as soon as the fault is over" can be seen too.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::books::threads;
use crate::support::{Proxy, eventually, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// An strace that changes what system calls of a thread return; ended when dropped.
#[derive(Debug)]
pub(crate) struct Injection {
    child: Child,
    thread: u32,
    directory: tempfile::TempDir,
}

impl Injection {
    /// Attaches to the first worker with expressions such as `splice:error=EINTR:when=3+7`.
    #[track_caller]
    pub(crate) fn start(proxy: &Proxy, expressions: &[&str]) -> Self {
        let thread = threads(proxy.pid(), "worker-0")[0];
        let calls: Vec<&str> =
            expressions.iter().map(|text| text.split_once(':').unwrap().0).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &thread.to_string(), "-e", "signal=none", "-o"]);
        command.arg(directory.path().join("calls"));
        command.arg("-e").arg(format!("trace={}", calls.join(",")));
        for expression in expressions {
            command.arg("-e").arg(format!("inject={expression}"));
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let injection = Self { child, thread, directory };
        eventually("strace is attached", PATIENCE, || injection.is_attached().then_some(()));
        injection
    }

    fn is_attached(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread));
        status.is_ok_and(|status| status.contains(&format!("TracerPid:\t{}\n", self.child.id())))
    }

    /// Calls that returned what was injected, so far.
    pub(crate) fn count(&self) -> usize {
        let text = std::fs::read_to_string(self.directory.path().join("calls")).unwrap();
        text.matches("(INJECTED)").count() + text.matches("(DELAYED)").count()
    }

    /// Detaches; how many calls it changed.
    #[track_caller]
    pub(crate) fn stop(mut self) -> usize {
        self.detach();
        self.count()
    }

    fn detach(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if within(PATIENCE, || self.child.try_wait().unwrap()).is_none() {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.detach();
    }
}
