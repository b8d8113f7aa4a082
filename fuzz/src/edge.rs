//! Edge's readers of what strangers send: however a stream is cut into reads, the same comes of it.

use http::HeaderValue;

use crate::client::Origin;
use crate::frames::Frames;
use crate::headers::RequestId;
use crate::http1::message::HEADERS_MAX;
use crate::http1::{request, response};
use crate::strict::{Phase, Scanner};

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

/// The codec's heads of requests: what it takes the scanner lets through, with the same end, and what it writes to the app is one strict head in which stands
/// once what edge alone may say.
pub fn request(input: &[u8]) {
    let mut out = Vec::new();
    let request::Parsed::Whole(head) = request::parse(input, &mut out) else { return };
    let taken = input.get(..head.len).expect("a head is a part of what came");
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(taken), Ok(()));
    assert_eq!((scanner.phase() == Phase::Idle, scanner.heads()), (head.body == 0, 1));
    let mut again = Vec::new();
    for end in [head.len / 2, head.len - 1] {
        let cut = input.get(..end).expect("a part of it");
        assert!(!matches!(request::parse(cut, &mut again), request::Parsed::Whole(_)), "half a head is none");
    }
    let origin = Origin::Outside { peer: HeaderValue::from_static("192.0.2.1"), secure: None };
    head.finish(&origin, &RequestId::new(7, 9), &mut out);
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(&out), Ok(()));
    assert_eq!(scanner.heads(), 1);
    let made: Vec<u8> =
        out.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect();
    let count = |name: &str| {
        let line = format!("\r\n{name}:");
        made.windows(line.len()).filter(|part| *part == line.as_bytes()).count()
    };
    for name in
        ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent"]
    {
        assert_eq!(count(name), 1, "{name}");
    }
    for name in ["connection", "transfer-encoding", "te", "upgrade", "forwarded", "x-real-ip", "x-berth-app"]
    {
        assert_eq!(count(name), 0, "{name}");
    }
    if out.windows(2).filter(|part| part == b"\r\n").count() > HEADERS_MAX {
        // What is added may be more than a client may send.
        return;
    }
    // What was written is read back as the same request, so that no byte of it means something else one hop further.
    let request::Parsed::Whole(same) = request::parse(&out, &mut again) else { panic!("it is a request") };
    assert_eq!(
        (same.len, same.body, &same.method, &same.uri),
        (out.len(), head.body, &head.method, &head.uri)
    );
}

/// The codec's answers: however one is cut into reads its body has the same end, and what goes to the client says once how that is found.
pub fn response(input: &[u8]) {
    let Some((stream, pieces)) = cut(input) else { return };
    let mut out = Vec::new();
    let response::Parsed::Whole(mut head) = response::parse(stream, false, &mut out) else { return };
    let lines = String::from_utf8_lossy(&out).to_ascii_lowercase();
    let framings =
        lines.matches("\r\ncontent-length:").count() + lines.matches("\r\ntransfer-encoding:").count();
    assert!(framings <= 1, "{lines}");
    assert!(!lines.contains("\r\nconnection:"), "{lines}");
    let body = stream.get(head.len..).expect("a head is a part of what came");
    let expected = head.body.take(body).ok();
    let mut skip = head.len;
    let response::Parsed::Whole(mut head) = response::parse(stream, false, &mut out) else {
        panic!("it was one")
    };
    let mut taken = Some(0);
    for piece in pieces {
        let here = skip.min(piece.len());
        skip -= here;
        let piece = piece.get(here..).unwrap_or_default();
        if head.body.has_ended() {
            break;
        }
        let Ok(count) = head.body.take(piece) else {
            taken = None;
            break;
        };
        taken = taken.map(|taken| taken + count);
    }
    assert_eq!(taken, expected);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_hold() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let targets = [
            ("strict", super::strict as fn(&[u8])),
            ("frames", super::frames),
            ("request", super::request),
            ("response", super::response),
        ];
        for (name, target) in targets {
            let files = std::fs::read_dir(seeds.join(name)).unwrap().map(|file| file.unwrap().path());
            let count = files.map(|file| target(&std::fs::read(file).unwrap())).count();
            assert!(count > 0, "{name}");
        }
    }
}
