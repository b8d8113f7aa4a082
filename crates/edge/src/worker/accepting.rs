//! The loop of one thread: it accepts, takes orders, looks at what is slow, and lets clients finish when it is told to stop.

use std::cmp::Reverse;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use crate::client::{Client, End};
use crate::dial::Dialers;
use crate::http2::Lines;
use crate::tls::{Secure, accept};
use crate::upstream::Pool;
use crate::worker::{Orders, Standing, Worker};
use crate::{events, internal};

/// Serves `listener` until `orders` say stop, then lets the clients finish. Gives how many requests had to be cut.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: TcpListener,
    secure: Option<Secure<TcpListener>>,
    mut orders: Orders,
    standing: Arc<Standing>,
) -> usize {
    let mut ticks = tokio::time::interval(worker.limits.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // After an error that a next try would only repeat (no file descriptors left), accepting waits for the next tick.
    let mut accepting = true;
    while !*orders.stop.borrow() {
        let full = worker.clients.borrow().len() >= worker.limits.connections;
        tokio::select! {
            accepted = accept(&listener, secure.as_ref()), if accepting && !full => match accepted {
                Ok((socket, peer, secure)) => worker.admit(socket, peer, secure.map(|it| it.acceptor.clone())),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    events::accept_failed(&error);
                    shed_idle(&worker);
                    accepting = false;
                }
            },
            Ok(()) = orders.fleet.changed() => {
                let fleet = Arc::clone(&orders.fleet.borrow_and_update());
                worker.take_fleet(fleet, &standing);
            }
            Ok(()) = orders.stir.changed() => worker.stirred.notify_waiters(),
            Some(socket) = orders.callers.recv() => worker.spawn(internal::keep(Rc::clone(&worker), socket)),
            // The channel closes only when the control thread has failed, which ends this one too.
            stop = orders.stop.changed() => if stop.is_err() { break },
            _ = ticks.tick() => {
                worker.tick();
                if full {
                    shed_idle(&worker);
                }
                accepting = true;
            }
            () = worker.left.notified(), if full => {}
        }
    }
    // What waits in the accept queue is not lost: the socket lives on with the supervisor.
    drop((listener, secure));
    drain(&worker, orders, &standing, &mut ticks).await
}

/// Ends up to a tenth of the connections that wait for a next request, those that wait longest first.
fn shed_idle(worker: &Worker) {
    let clients = worker.clients.borrow();
    let mut idle: Vec<&Rc<Client>> = clients.values().filter(|client| client.may_be_shed()).collect();
    idle.sort_by_key(|client| Reverse(client.age()));
    let shed = (clients.len() / 10).max(1);
    for client in idle.into_iter().take(shed) {
        client.shed();
    }
}

async fn drain(
    worker: &Rc<Worker>,
    mut orders: Orders,
    standing: &Standing,
    ticks: &mut tokio::time::Interval,
) -> usize {
    worker.draining.set(true);
    // What waits for calls of instances leaves them to the next edge.
    worker.stirred.notify_waiters();
    *worker.pool.borrow_mut() = Pool::default();
    *worker.streams.borrow_mut() = Pool::default();
    *worker.lines.borrow_mut() = Lines::default();
    *worker.dialers.borrow_mut() = Dialers::default();
    let limits = &worker.limits;
    // Beside another edge it is in nobody's way: what lasts, an upload or an answer that takes its time, may come to its end.
    let beside = orders.passed_on.load(SeqCst);
    let deadline = tokio::time::sleep(if beside { limits.drain_beside } else { limits.drain });
    // An idle connection may bring one more request, which is answered with `Connection: close`. To close it at once
    // would meet, now and then, a request that is just on its way, and fail it.
    let grace = tokio::time::sleep(limits.drain_idle.min(limits.drain));
    tokio::pin!(deadline, grace);
    let mut graceful = false;
    while !worker.is_empty() {
        tokio::select! {
            () = &mut deadline => break,
            () = &mut grace, if !graceful => {
                graceful = true;
                worker.clients.borrow().values().for_each(|client| client.end(End::Gracefully));
            }
            Ok(()) = orders.fleet.changed() => {
                let fleet = Arc::clone(&orders.fleet.borrow_and_update());
                worker.take_fleet(fleet, standing);
            }
            Ok(()) = orders.stir.changed() => worker.stirred.notify_waiters(),
            () = worker.left.notified() => {}
            _ = ticks.tick() => worker.tick(),
        }
    }
    let cut = worker.remaining();
    // The tasks hold the worker and it holds them: without this neither would ever go.
    let tasks = std::mem::take(&mut *worker.tasks.borrow_mut());
    drop(tasks);
    worker.log.borrow_mut().take();
    cut
}

/// Errors that concern the connection that was to be accepted, not the listener (accept(2)).
pub(crate) fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}
