//! A thread that lives as long as the process, for children that die with their parent.
//!
//! The kernel ties a parent-death signal to the thread that forked, not to its process. Forked from a worker
//! of a thread pool, the child would be killed when that worker retires.

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Task = Box<dyn FnOnce() + Send>;

/// Runs `task` on the thread that never ends, and gives its result.
pub(crate) fn on_lasting_thread<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, result) = sync_channel(1);
    let task: Task = Box::new(move || {
        // The caller waits below, so that this cannot fail.
        drop(answer.send(task()));
    });
    spawner().send(task).expect("the spawner thread never ends");
    result.recv().expect("the spawner thread answers")
}

fn spawner() -> &'static SyncSender<Task> {
    static SPAWNER: OnceLock<SyncSender<Task>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        // Callers wait for their turn in the channel; one place is enough, since each waits for its result anyway.
        let (sender, tasks) = sync_channel::<Task>(1);
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || tasks.into_iter().for_each(|task| task()))
            .expect("a thread can be started");
        sender
    })
}
