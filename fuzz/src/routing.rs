//! What edge is told: frames and snapshots. A document that is read is written as it was, and compiled or refused.

use berth_routing::wire::{Decoder, FromEdge, ToEdge};
use berth_routing::{Generation, Names, Snapshot, Table};

/// Frames from control, in two pieces or in one.
pub fn decoder(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut came) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(piece);
            loop {
                match decoder.message::<ToEdge>() {
                    Ok(Some(message)) => came.push(message),
                    Ok(None) => break,
                    Err(_) => return (came, true),
                }
            }
        }
        (came, false)
    };
    let (one, other) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(read(&[one, other]), read(&[stream]));
    let mut decoder = Decoder::default();
    decoder.feed(stream);
    while let Ok(Some(_)) = decoder.message::<FromEdge>() {}
}

/// A snapshot as it lies on disk.
pub fn snapshot(input: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(input) else { return };
    let written = serde_json::to_vec(&snapshot).expect("what was read can be written");
    let again: Snapshot = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, snapshot);
    drop(Names::of(&snapshot));
    if let Ok((table, _flaws)) = Table::compile(&snapshot, Generation(0)) {
        for host in snapshot.apps.values().flat_map(|app| &app.hosts) {
            let _nobody = table.app_at(&host.0);
        }
    }
}
