//! From the journal to the state: the newest fitting snapshot, then every event after it.

use aws_lc_rs::digest::{Context, SHA256};
use berth_clock::Clock;
use berth_control::event::{Event, Stream, UnknownStream, UnreadableEvent};
use berth_control::fold::Stamp;
use berth_control::format;
use berth_control::state::State;
use berth_journal::{EventRef, Journal, Position, ReplayError};

use crate::events;

/// An event of the journal that this version cannot take in.
#[derive(Debug, thiserror::Error)]
pub enum Unfoldable {
    /// Its stream is unknown.
    #[error(transparent)]
    Stream(#[from] UnknownStream),
    /// It cannot be read.
    #[error(transparent)]
    Event(#[from] UnreadableEvent),
}

/// What a journal holds.
#[derive(Debug)]
pub struct Replayed {
    /// The state at its end.
    pub state: State,
    /// The format that its events have, where the journal's own is not the newest.
    pub format: u32,
}

/// Folds one recorded event into `state`. Gives the format that it is written in.
///
/// # Errors
/// [`Unfoldable`] when this version cannot read it; a newer version wrote it.
pub fn fold(state: &mut State, event: &EventRef<'_>) -> Result<u32, Unfoldable> {
    let stream: Stream = event.stream.parse()?;
    let decoded = Event::decode(event.kind, event.schema, event.body)?;
    let stamp = Stamp { position: event.position.0, at: event.at, actor: event.actor.to_owned() };
    state.apply(&stream, &decoded, &stamp);
    Ok(format::of_event(&decoded).map_or(format::OLDEST, |newer| newer.format))
}

/// The state that the journal holds, and the format that its events have.
///
/// # Errors
/// When the journal cannot be read or holds what this version does not understand.
pub fn replay(
    journal: &Journal,
    clock: &dyn Clock,
    key: [u8; 32],
) -> Result<Replayed, ReplayError<Unfoldable>> {
    let began = clock.monotonic();
    // A journal that may hold more than its format has is looked at as a whole.
    let cached = if journal.format() == format::NEWEST { journal.load_snapshot(key) } else { None };
    let cached = cached
        .and_then(|it| serde_json::from_slice::<State>(&it.bytes).ok().map(|state| (it.position, state)));
    let from_snapshot = cached.is_some();
    let (position, mut state) = cached.unwrap_or((Position::START, State::default()));
    let mut newest = format::OLDEST;
    journal.replay(position.next(), journal.head(), |event| {
        newest = newest.max(fold(&mut state, &event)?);
        Ok(())
    })?;
    events::started(state.position, state.apps.len(), from_snapshot, clock.monotonic().saturating_sub(began));
    Ok(Replayed { state, format: newest })
}

/// Keeps `state` so that the next start is quicker. It is a cache: a failure is only noted.
pub fn keep_snapshot(journal: &Journal, key: [u8; 32], state: &State) {
    let bytes = serde_json::to_vec(state).expect("the state is plain data with string keys");
    if let Err(error) = journal.save_snapshot(key, Position(state.position), &bytes) {
        events::could_not("keep a snapshot of the state", &error);
    }
}

/// The key of snapshots that this very program wrote: the hash of its executable. An upgrade replays, and nobody has to remember to raise
/// a number when a type of the state changes.
///
/// # Errors
/// When the executable cannot be read.
pub fn snapshot_key() -> std::io::Result<[u8; 32]> {
    use std::io::Read as _;
    let mut program = std::fs::File::open("/proc/self/exe")?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match program.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}
