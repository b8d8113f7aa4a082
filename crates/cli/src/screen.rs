//! Where output goes: results to standard output, everything else to standard error.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read as _, Write};

use serde::Serialize;

use crate::args::ColorChoice;

/// How a piece of text is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Stands out.
    Bold,
    /// Stands back.
    Dim,
    /// Went well.
    Good,
    /// Needs a look.
    Warning,
    /// Went wrong.
    Bad,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// `text` in its style when `colour` says so.
#[must_use]
pub fn paint(text: &str, style: Style, colour: bool) -> String {
    if colour && style != Style::Plain && !text.is_empty() {
        format!("{}{text}\x1b[0m", style.code())
    } else {
        text.to_owned()
    }
}

/// `text` with every control character replaced: what an app or a user wrote must not move the cursor, retitle the window or
/// hide what follows.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The streams that a verb writes to and reads from.
pub struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    input: Box<dyn BufRead>,
    /// Whether somebody can be asked.
    pub(crate) asks: bool,
    /// Whether standard output can be redrawn.
    pub(crate) live: bool,
    /// Whether standard output has colours.
    pub(crate) colour: bool,
    /// Whether standard error has colours.
    colour_err: bool,
    /// The terminal's columns; none when there is no terminal and lines may have any length.
    pub(crate) width: Option<usize>,
    /// Whether a status line stands where the next line goes.
    status_shown: bool,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("live", &self.live).field("width", &self.width).finish_non_exhaustive()
    }
}

impl Screen {
    /// The process's own streams. `no_color` says whether the variable `NO_COLOR` is set to something.
    #[must_use]
    pub fn standard(choice: ColorChoice, no_color: bool) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let coloured = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !no_color,
        };
        let live = out.is_terminal();
        let width = live.then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
        Self {
            asks: io::stdin().is_terminal() && live,
            live,
            colour: coloured(live),
            colour_err: coloured(err.is_terminal()),
            width: width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0),
            out: Box::new(out),
            err: Box::new(err),
            input: Box::new(io::BufReader::new(io::stdin())),
            status_shown: false,
        }
    }

    /// Streams without a terminal.
    #[must_use]
    pub fn plain(
        out: impl Write + 'static,
        err: impl Write + 'static,
        input: impl BufRead + 'static,
    ) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            input: Box::new(input),
            asks: false,
            live: false,
            colour: false,
            colour_err: false,
            width: None,
            status_shown: false,
        }
    }

    /// Writes a line of the result.
    ///
    /// # Errors
    /// When the stream does not take it; a reader that went away is [`io::ErrorKind::BrokenPipe`].
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.clear_status()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes a line of the result in a style.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn styled(&mut self, text: &str, style: Style) -> io::Result<()> {
        let text = paint(text, style, self.colour);
        self.line(&text)
    }

    /// Writes the result as one JSON document on a line of its own.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Writes a line beside the result.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn aside(&mut self, text: &str) -> io::Result<()> {
        self.clear_status()?;
        writeln!(self.err, "{text}")?;
        self.err.flush()
    }

    /// Writes a line beside the result whose first word is in a style.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn marked_aside(&mut self, mark: &str, style: Style, text: &str) -> io::Result<()> {
        let mark = paint(mark, style, self.colour_err);
        self.aside(&format!("{mark} {text}"))
    }

    /// Shows a line that the next one replaces. Without a terminal it is left out.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn status(&mut self, text: &str) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let columns = self.width.unwrap_or(80).saturating_sub(1);
        let text: String = harmless(text).chars().take(columns).collect();
        write!(self.out, "\r\x1b[K{}", paint(&text, Style::Dim, self.colour))?;
        self.status_shown = true;
        self.out.flush()
    }

    /// Removes the status line.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn clear_status(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.status_shown) {
            write!(self.out, "\r\x1b[K")?;
        }
        Ok(())
    }

    /// Asks a question and reads a line; without its end.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(self.err, "{question} ")?;
        self.err.flush()?;
        let mut answer = String::new();
        self.input.read_line(&mut answer)?;
        Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// Reads standard input to its end, at most `most` bytes of it; one line end at the end is not part of it.
    pub(crate) fn read_input(&mut self, most: u64) -> io::Result<String> {
        let mut text = String::new();
        let read = io::Read::take(&mut self.input, most + 1).read_to_string(&mut text)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is longer than {most} bytes"),
            ));
        }
        if let Some(shorter) = text.strip_suffix('\n') {
            text.truncate(shorter.strip_suffix('\r').unwrap_or(shorter).len());
        }
        Ok(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, to be looked at.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_status_line_makes_way() {
        let out = Written::default();
        let mut screen = Screen::plain(out.clone(), io::sink(), io::empty());
        screen.status("unseen").unwrap();
        screen.live = true;
        screen.status("working\x1b[2J").unwrap();
        screen.line("done").unwrap();
        assert_eq!(out.text(), "\r\x1b[Kworking\u{fffd}[2J\r\x1b[Kdone\n");
    }

    #[test]
    fn input_is_read_without_its_last_line_end() {
        let mut screen = Screen::plain(io::sink(), io::sink(), &b"a\nb\r\n"[..]);
        assert_eq!(screen.read_input(10).unwrap(), "a\nb");
        let mut screen = Screen::plain(io::sink(), io::sink(), &b"abcdef"[..]);
        assert!(screen.read_input(3).is_err());
    }
}
