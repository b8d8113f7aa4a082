//! Server-sent events out of bytes, as the HTML standard reads them (section 9.2.6).

use std::collections::VecDeque;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The last id that was given, which may be an earlier event's.
    pub(super) id: Option<String>,
    /// Its name, `message` when none was given.
    pub(super) name: String,
    /// Its lines of data.
    pub(super) data: String,
}

/// An event grew beyond what one can be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {EVENT_MAX} bytes")]
pub(super) struct TooLong;

/// A log line is at most 16 KiB and a failure carries a hundred of them.
const EVENT_MAX: usize = 8 << 20;

/// Reads events out of a stream of bytes, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    id: Option<String>,
    name: String,
    data: String,
    has_data: bool,
    ready: VecDeque<Event>,
}

impl Parser {
    /// Takes bytes in. The events they complete are bounded by the bytes: no more come in before [`Self::next`] gave all.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for &byte in bytes {
            let ends_with_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if ends_with_return => {}
                b'\n' | b'\r' => self.end_line(),
                byte => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_MAX {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// The next complete event.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_start_matches('\u{feff}');
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment has an empty field; `retry` and what may come are not for us.
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Event { id: self.id.clone(), name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.next()).collect()
    }

    fn event(id: Option<&str>, name: &str, data: &str) -> Event {
        Event { id: id.map(str::to_owned), name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = b"\xef\xbb\xbf: hello\n\nid: 7\nevent: progress\ndata: {\"a\":\ndata: 1}\n\ndata\r\n\r\nevent: x\n\ndata:  y\rid\r\rdata: cut";
        assert_eq!(
            parse(&[text]),
            [
                event(Some("7"), "progress", "{\"a\":\n1}"),
                event(Some("7"), "message", ""),
                event(Some(""), "message", " y"),
            ]
        );
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'a'; EVENT_MAX + 1]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), any::<u8>(),
            ], 0..200),
            prefix in prop_oneof![Just(""), Just("id: 1\ndata: x\n"), Just("event: e\r\ndata: y\r\n\r\n")],
            cut in 0..200_usize,
        ) {
            let whole = [prefix.as_bytes(), &bytes].concat();
            let (left, right) = whole.split_at(cut.min(whole.len()));
            prop_assert_eq!(parse(&[&whole]), parse(&[left, right]));
        }
    }
}
