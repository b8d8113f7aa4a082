//! Tasks that nobody waits for, and whose panic ends control.

use tokio::task::AbortHandle;

/// Runs `work` as a task of its own. Should it panic, the process ends: a build or a stop that silently never ends would hold its
/// app up for ever, while the next control starts from what is durable.
///
/// Rejected: a `JoinSet` that somebody has to look into, since every owner would have to be woken for it; and letting tokio keep the
/// panic, which loses it.
pub(crate) fn run(what: &'static str, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let task = tokio::spawn(async move {
        let _loud = Loud(what);
        work.await;
    });
    task.abort_handle()
}

struct Loud(&'static str);

impl Drop for Loud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(what = self.0, "a task has panicked");
            std::process::abort();
        }
    }
}
