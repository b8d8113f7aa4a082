//! Commands to events to state; desired and observed to a plan; invariants. The whole control plane without a clock, a random number or
//! a socket: `server` performs what is decided and planned here, and `sim` runs the very same code in a world of faults.
//!
//! The way of a command: [`decide::decide`] turns it into events or a refusal, [`ledger::Ledger`] keeps the state that it was decided on apart from
//! the state that is durable, [`state::State::apply`] folds the events. The way of the world: [`plan::plan`] compares an app with
//! what is seen of it ([`world`]) and proposes actions; the facts among them are commands again.

pub mod certificate;
pub mod command;
pub mod cron;
pub mod decide;
pub mod event;
pub mod fold;
pub mod format;
pub mod healthcheck;
pub mod invariant;
pub mod ledger;
pub mod plan;
pub mod report;
pub mod route;
pub mod sleep;
pub mod state;
pub mod volume;
pub mod world;

#[cfg(test)]
mod scene;
