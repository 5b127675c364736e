//! Work that takes long, done beside the thread `control`, which answers others meanwhile.

use tokio::task::JoinHandle;

/// Runs `work` on a thread that may be busy, and waits for what it gives.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    end_of(tokio::task::spawn_blocking(work)).await
}

/// Waits for what a task gives. Dropping this wait does not end the task.
pub(crate) async fn end_of<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this wait with it.
            Err(_) => std::future::pending().await,
        },
    }
}
