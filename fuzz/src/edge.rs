//! Edge's readers of what strangers send: however a stream is cut into reads, the same comes of it.

use crate::frames::Frames;
use crate::strict::Scanner;

/// Longer lines are refused earlier when they come in pieces, which is as it should be.
const INPUT_MAX: usize = 4 << 10;

/// The rest of the input and the pieces that it comes in, whose lengths its first bytes say.
fn cut(input: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let (sizes, stream) = input.split_at_checked(4)?;
    if stream.len() > INPUT_MAX {
        return None;
    }
    let mut sizes = sizes.iter().cycle();
    let mut rest = stream;
    let pieces = std::iter::from_fn(move || {
        let size = usize::from(*sizes.next()?).max(1).min(rest.len());
        let (piece, after) = rest.split_at_checked(size).filter(|(piece, _)| !piece.is_empty())?;
        rest = after;
        Some(piece)
    });
    Some((stream, pieces))
}

/// The scanner of HTTP/1.
pub fn strict(input: &[u8]) {
    let Some((stream, pieces)) = cut(input) else { return };
    let mut whole = Scanner::new();
    let expected = whole.scan(stream).map(|()| (whole.phase(), whole.heads()));
    let (mut scanner, mut passed, mut outcome) = (Scanner::new(), 0, Ok(()));
    for piece in pieces {
        outcome = scanner.scan(piece);
        if let Err(refusal) = &mut outcome {
            refusal.at += passed;
            assert!(refusal.at < stream.len());
            break;
        }
        passed += piece.len();
    }
    assert_eq!(outcome.map(|()| (scanner.phase(), scanner.heads())), expected);
}

/// What follows the frames of a WebSocket.
pub fn frames(input: &[u8]) {
    let Some((stream, pieces)) = cut(input) else { return };
    let expected = Frames::default().has_data(stream);
    let mut frames = Frames::default();
    let found = pieces.fold(false, |found, piece| frames.has_data(piece) | found);
    assert_eq!(found, expected);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_hold() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        for (name, target) in [("strict", super::strict as fn(&[u8])), ("frames", super::frames)] {
            let files = std::fs::read_dir(seeds.join(name)).unwrap().map(|file| file.unwrap().path());
            let count = files.map(|file| target(&std::fs::read(file).unwrap())).count();
            assert!(count > 0, "{name}");
        }
    }
}
