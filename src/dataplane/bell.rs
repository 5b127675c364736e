//! How others tell a worker that there may be a place for its client that is first in a line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::Callable;

use super::kernel::Wake;

/// The bell of one worker.
#[derive(Debug)]
pub(crate) struct Bell {
    waker: Arc<dyn Wake>,
    has_rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Self {
        Self { waker, has_rung: AtomicBool::new(false) }
    }

    /// Whether it has been rung since this was asked last.
    pub(crate) fn has_rung(&self) -> bool {
        self.has_rung.swap(false, Ordering::Acquire)
    }
}

impl Callable for Bell {
    fn call(&self) {
        self.has_rung.store(true, Ordering::Release);
        // The eventfd of a worker that is gone needs no waking.
        let _gone = self.waker.wake();
    }
}
