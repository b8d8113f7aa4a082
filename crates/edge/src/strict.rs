//! Reads along with the bytes of a client and says where they leave the strict form of HTTP/1.1.
//!
//! hyper parses what passes here. It is lenient where two parsers may disagree, and two parsers that disagree on where
//! a request ends are how requests are smuggled: it takes bare line feeds, drops the Content-Length beside a
//! Transfer-Encoding before anyone sees it, takes `gzip, chunked`, repeated equal lengths and two Host headers. So
//! this scanner follows heads and framing by itself, keeps nothing but a line that is not complete yet, and refuses
//! all of those. It allows nothing that hyper would not: a request has to please both.

use memchr::memchr;

/// A line longer than this is refused here; hyper's own limit on a whole head is lower.
const LINE_MAX: usize = 64 << 10;
/// A chunk's size line longer than this is refused.
const SIZE_LINE_MAX: usize = 4 << 10;

/// Where the bytes stopped being acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The place of the first byte that must not be passed on.
    pub(crate) at: usize,
    /// Whether it lies in a head; otherwise in a body.
    pub(crate) in_head: bool,
}

/// What the client is in the middle of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: between requests.
    Idle,
    /// A head.
    Head,
    /// A body.
    Body,
    /// Bytes of another protocol.
    Raw,
}

/// What bytes of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A chunk's.
    Data,
    /// The trailer's, the line that ends it too.
    Trailer,
    /// What the others stand between.
    Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine,
    Header,
    Body { left: u64 },
    ChunkSize,
    Chunk { left: u64 },
    ChunkEnd,
    Trailer,
    Raw,
}

#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
}

/// Follows one client's connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    framing: Framing,
    /// The beginning of a line whose end did not arrive yet; at most [`LINE_MAX`] bytes and one read.
    partial: Vec<u8>,
    heads: u32,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self { state: State::RequestLine, framing: Framing::default(), partial: Vec::new(), heads: 0 }
    }

    /// Follows chunks from the first one's size to the end of the trailer.
    pub(crate) fn of_chunks() -> Self {
        Self { state: State::ChunkSize, ..Self::new() }
    }

    /// Whether nothing of a message is left to come.
    pub(crate) fn is_between(&self) -> bool {
        self.phase() == Phase::Idle
    }

    /// What the client is in the middle of.
    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::RequestLine if self.partial.is_empty() => Phase::Idle,
            State::RequestLine | State::Header => Phase::Head,
            State::Body { .. }
            | State::ChunkSize
            | State::Chunk { .. }
            | State::ChunkEnd
            | State::Trailer => Phase::Body,
            State::Raw => Phase::Raw,
        }
    }

    /// How many heads were complete, wrapping.
    pub(crate) fn heads(&self) -> u32 {
        self.heads
    }

    /// Reads on with `bytes`. After a refusal nothing more may be scanned.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(bytes, at)?;
        }
        Ok(())
    }

    /// Reads on with `bytes` to the end of the message that it is in the middle of, and says how many of them that has.
    pub(crate) fn scan_message(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() && !self.is_between() {
            at += self.step(bytes, at)?;
        }
        Ok(at)
    }

    /// Reads on with the beginning of `bytes` as far as it is of one kind, and says how much that is.
    pub(crate) fn scan_part(&mut self, bytes: &[u8]) -> Result<(usize, Part), Refusal> {
        let part = match self.state {
            State::Chunk { .. } => Part::Data,
            State::Trailer => Part::Trailer,
            State::RequestLine
            | State::Header
            | State::Body { .. }
            | State::ChunkSize
            | State::ChunkEnd
            | State::Raw => Part::Framing,
        };
        Ok((self.step(bytes, 0)?, part))
    }

    /// Reads what comes `at` a place among `bytes` as far as it is of one kind, and says how much that is.
    fn step(&mut self, bytes: &[u8], at: usize) -> Result<usize, Refusal> {
        let rest = bytes.get(at..).unwrap_or_default();
        match self.state {
            State::Raw => Ok(rest.len()),
            State::Body { left } | State::Chunk { left } => {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.advance(left - taken as u64);
                Ok(taken)
            }
            State::RequestLine | State::Header | State::ChunkSize | State::ChunkEnd | State::Trailer => {
                let in_head = matches!(self.state, State::RequestLine | State::Header);
                let Some(end) = memchr(b'\n', rest) else {
                    self.partial.extend_from_slice(rest);
                    let max = if in_head { LINE_MAX } else { SIZE_LINE_MAX };
                    let fits = self.partial.len() <= max;
                    return fits.then_some(rest.len()).ok_or(Refusal { at: bytes.len() - 1, in_head });
                };
                let line = rest.get(..end).unwrap_or_default();
                self.whole_line(line).ok_or(Refusal { at: at + end, in_head })?;
                Ok(end + 1)
            }
        }
    }

    fn advance(&mut self, left: u64) {
        self.state = match self.state {
            State::Body { .. } if left == 0 => self.end_of_request(),
            State::Body { .. } => State::Body { left },
            State::Chunk { .. } if left == 0 => State::ChunkEnd,
            State::Chunk { .. } => State::Chunk { left },
            other @ (State::RequestLine
            | State::Header
            | State::ChunkSize
            | State::ChunkEnd
            | State::Trailer
            | State::Raw) => other,
        };
    }

    fn whole_line(&mut self, end: &[u8]) -> Option<()> {
        if self.partial.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(end);
        let outcome = self.line(&line);
        line.clear();
        self.partial = line;
        outcome
    }

    /// Takes a line without its line feed; `None` refuses it.
    fn line(&mut self, line: &[u8]) -> Option<()> {
        let line = line.strip_suffix(b"\r")?;
        self.state = match self.state {
            // A line end before the request line is to be ignored (RFC 9112, 2.2).
            State::RequestLine if line.is_empty() => State::RequestLine,
            State::RequestLine => State::Header,
            State::Header if line.is_empty() => self.end_of_head()?,
            State::Header => {
                self.framing.header(line)?;
                State::Header
            }
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailer,
                left => State::Chunk { left },
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => return None,
            State::Trailer if line.is_empty() => self.end_of_request(),
            State::Trailer
                if memchr(b'\r', line).is_some() || memchr(b':', line).is_none() || starts_blank(line) =>
            {
                return None;
            }
            State::Trailer => State::Trailer,
            other @ (State::Body { .. } | State::Chunk { .. } | State::Raw) => other,
        };
        Some(())
    }

    fn end_of_head(&mut self) -> Option<State> {
        self.heads = self.heads.wrapping_add(1);
        match (self.framing.length, self.framing.chunked) {
            (Some(_), true) => None,
            (None, true) => Some(State::ChunkSize),
            (None | Some(0), false) => Some(self.end_of_request()),
            (Some(left), false) => Some(State::Body { left }),
        }
    }

    /// After a request that asks for another protocol nothing is read as HTTP any more: edge answers it with 101 or
    /// closes the connection.
    fn end_of_request(&mut self) -> State {
        let framing = std::mem::take(&mut self.framing);
        if framing.upgrade { State::Raw } else { State::RequestLine }
    }
}

impl Framing {
    fn header(&mut self, line: &[u8]) -> Option<()> {
        if starts_blank(line) {
            return None;
        }
        let (name, value) = line.split_at(memchr(b':', line)?);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            return (!std::mem::replace(&mut self.host, true)).then_some(());
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = number(value, 10)?;
            return self.length.replace(length).is_none().then_some(());
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let first = !std::mem::replace(&mut self.chunked, true);
            return (first && value.eq_ignore_ascii_case(b"chunked")).then_some(());
        }
        self.upgrade |= name.eq_ignore_ascii_case(b"upgrade");
        Some(())
    }
}

fn starts_blank(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Digits and nothing else: no sign, no list, no blanks, no overflow.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if !digits.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extension) = line.split_at(digits);
    // Sixteen digits say every length; more of them some readers cut off.
    let clean = size.len() <= 16
        && matches!(extension.trim_ascii_start().first(), None | Some(b';'))
        && !extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    clean.then(|| number(size, 16)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Result<Phase, Refusal> {
        let mut scanner = Scanner::new();
        scanner.scan(text.as_bytes()).map(|()| scanner.phase())
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

    #[test]
    fn framing_is_followed_to_the_next_request() {
        for (request, phase) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Phase::Idle),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Phase::Idle),
            ("GET / HT", Phase::Head),
            ("GET / HTTP/1.1\r\n", Phase::Head),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab", Phase::Body),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", Phase::Idle),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n", Phase::Idle),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nt: v\r\n\r\n",
                Phase::Idle,
            ),
            ("GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n\n\n\0", Phase::Raw),
        ] {
            assert_eq!(scan(request), Ok(phase), "{request:?}");
        }
    }

    #[test]
    fn each_form_of_smuggling_is_refused_in_the_head() {
        for rest in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1, 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: -1\r\n\r\n",
            "Content-Length: 0x1\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Content-Length: 18446744073709551616\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: identity\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
            "Host: b\r\n\r\n",
            "X: a\r\n folded\r\n\r\n",
            "X: a\n\r\n",
            "X: a\r\n\n",
            "no colon\r\n\r\n",
        ] {
            let refusal = scan(&format!("{HEAD}{rest}")).expect_err(rest);
            assert!(refusal.in_head, "{rest:?}");
        }
        assert!(scan("GET / HTTP/1.1\nHost: a\r\n\r\n").is_err());
        assert!(scan("\nGET / HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn each_bad_chunk_is_refused_in_the_body() {
        for body in [
            "2\nab\r\n",
            "2\r\nabc\r\n",
            "2\r\nab\n",
            "g\r\n",
            "\r\n",
            "-1\r\n",
            "0x2\r\nab",
            "2 \0\r\n",
            "2x\r\n",
            "2 3\r\nab\r\n",
            "00000000000000002\r\nab\r\n",
            "0\r\nno colon\r\n",
            "11111111111111111\r\n",
            "0\r\na: b\n\r\n",
            "0\r\n folded\r\n",
            "2\r\nab\r\r\n",
        ] {
            let refusal = scan(&format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}")).expect_err(body);
            assert!(!refusal.in_head, "{body:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut scanner = Scanner::new();
        let piece = [b'a'; 1024];
        let refused = (0..200).find(|_| scanner.scan(&piece).is_err());
        assert_eq!(refused, Some(64));
    }

    proptest! {
        /// However a stream is cut into reads, the same byte is refused and the same phase reached.
        #[test]
        fn cuts_do_not_matter(
            lines in proptest::collection::vec(
                "(GET / HTTP/1.1|Host: a|Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked|[0-9a]|ab|Upgrade: x|)(\r\n|\r\n|\r\n|\n)", 0..12),
            cuts in proptest::collection::vec(1_usize..9, 1..20),
        ) {
            let stream = lines.concat();
            let mut whole = Scanner::new();
            let expected = whole.scan(stream.as_bytes()).map(|()| whole.phase());
            let (mut pieces, mut rest, mut passed) = (Scanner::new(), stream.as_bytes(), 0);
            let mut outcome = Ok(Phase::Idle);
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                outcome = pieces
                    .scan(piece)
                    .map(|()| pieces.phase())
                    .map_err(|refusal| Refusal { at: refusal.at + passed, ..refusal });
                (rest, passed) = (after, passed + piece.len());
                if rest.is_empty() || outcome.is_err() {
                    break;
                }
            }
            prop_assert_eq!(outcome, expected);
        }
    }
}
