//! Which bytes of a WebSocket are more than its own housekeeping: pongs that a client's library sends by itself keep no app awake.

/// Follows the frames (RFC 6455, 5.2) that one side sends. Where that side breaks the rules nothing is refused here: it is only counted wrongly.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD_MAX],
    have: usize,
    payload: u64,
    is_data: bool,
}

/// Two bytes, a length of up to eight and a mask of four.
const HEAD_MAX: usize = 14;

impl Frames {
    /// Whether something of a message is in `bytes`, which come next.
    pub(crate) fn has_data(&mut self, mut bytes: &[u8]) -> bool {
        let mut data = false;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= here as u64;
                data |= self.is_data;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = first;
            }
            self.have += 1;
            bytes = rest;
            if self.have >= self.needed() {
                self.begin();
                data |= self.is_data;
            }
        }
        data
    }

    /// How long the head is, as far as it has come.
    fn needed(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin(&mut self) {
        self.payload = match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => self.head[2..10].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            short => u64::from(short),
        };
        // From 8 on it is control: close, ping, pong.
        self.is_data = self.head[0] & 0x0f < 8;
        self.have = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn pongs_and_pings_are_no_message() {
        let mut frames = Frames::default();
        assert!(!frames.has_data(&frame(0xa, b"")));
        assert!(!frames.has_data(&[frame(0x9, b"hello"), frame(0x8, &[3, 232])].concat()));
        assert!(frames.has_data(&frame(0x1, b"hello")));
        assert!(frames.has_data(&[frame(0xa, b"x"), frame(0x2, &[0; 70_000]), frame(0xa, b"x")].concat()));
        assert!(frames.has_data(&frame(0x1, b"")), "an empty message is one");
        assert!(!frames.has_data(&frame(0xa, &[0x81; 125])), "what is in a pong is not looked at");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_they_are_cut(
            sent in proptest::collection::vec((any::<bool>(), 0_usize..300), 1..20),
            cuts in proptest::collection::vec(1_usize..40, 1..50),
        ) {
            let stream: Vec<u8> =
                sent.iter().flat_map(|(data, length)| frame(if *data { 2 } else { 10 }, &vec![0x81; *length])).collect();
            let (mut frames, mut rest, mut data) = (Frames::default(), &stream[..], false);
            for cut in cuts.into_iter().cycle() {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                data |= frames.has_data(piece);
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(data, sent.iter().any(|(data, _)| *data));
        }
    }
}
