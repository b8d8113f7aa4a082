//! `logs`.

use std::pin::pin;

use berth_contract::{Code, ExitStatus, LogLine, LogQuery, LogStream};
use berth_spec::InstanceId;
use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::figures;
use crate::screen::{Style, harmless, paint};

impl Session<'_> {
    pub(super) async fn logs(&mut self, args: LogsArgs) -> Result<ExitStatus, Failure> {
        let app = self.app_id(&args.of)?;
        if let Some(instance) = &args.instance
            && format!("{app}/{instance}").parse::<InstanceId>().is_err()
        {
            let detail = format!("{instance:?} is not the name of an instance");
            return Err(Failure::local(
                Code::UsageInvalid,
                detail,
                "instances are named like web.7; see `berth ps`",
            ));
        }
        let query = LogQuery {
            follow: args.follow,
            lines: args.after.is_none().then_some(args.lines),
            process: args.process,
            instance: args.instance,
            after: args.after,
        };
        let mut lines = self.client.logs(&app, &query);
        let mut silent = true;
        // One over all lines: a Ctrl-C between two of them, where nobody listened, would be lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let line = {
                let mut next = pin!(lines.next());
                tokio::select! {
                    line = &mut next => line,
                    _ = interrupt.recv() => return Ok(ExitStatus::Interrupted),
                }
            };
            match line.transpose()? {
                None => {
                    if silent {
                        self.hint(
                            "nothing is there: `berth ps` shows which instances and processes there are",
                        )?;
                    }
                    return Ok(ExitStatus::Ok);
                }
                Some(line) if self.json => self.screen.json(&line)?,
                Some(line) => {
                    silent = false;
                    let text = render(&line, self.screen.live, self.screen.colour);
                    self.screen.line(&text)?;
                }
            }
        }
    }
}

/// A line as people read it: a short time on a terminal, the exact one in a pipe, where the text stays as it was written.
pub(super) fn render(line: &LogLine, live: bool, colour: bool) -> String {
    let instance = line.instance.short();
    if !live {
        return format!("{} {instance} {}", figures::exact(line.at), line.text);
    }
    let time = paint(&figures::clock_time(line.at), Style::Dim, colour);
    let style = match line.stream {
        LogStream::Stdout => Style::Good,
        LogStream::Stderr => Style::Warning,
        LogStream::Berth => Style::Dim,
    };
    let text = if colour { with_colours(&line.text) } else { harmless(&without_colours(&line.text)) };
    let text = if line.stream == LogStream::Berth { paint(&text, Style::Dim, colour) } else { text };
    format!("{time} {} {text}", paint(&format!("{instance:<8}"), style, colour))
}

/// The text with its own colours (`ESC [ ... m`) and without any other control sequence.
fn with_colours(text: &str) -> String {
    let mut kept = String::new();
    let mut coloured = false;
    for piece in pieces(text) {
        match piece {
            Piece::Colour(sequence) => {
                coloured = true;
                kept.push_str(sequence);
            }
            Piece::Text(text) => kept.push_str(&harmless(text)),
        }
    }
    if coloured {
        kept.push_str("\x1b[0m");
    }
    kept
}

fn without_colours(text: &str) -> String {
    pieces(text)
        .iter()
        .filter_map(|piece| if let Piece::Text(text) = piece { Some(*text) } else { None })
        .collect()
}

enum Piece<'t> {
    Text(&'t str),
    Colour(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("\x1b[") {
        let (before, sequence) = rest.split_at(start);
        let parameters =
            sequence.bytes().skip(2).take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
        let length = 2 + parameters;
        let is_colour = sequence.as_bytes().get(length) == Some(&b'm');
        // What is not a colour is text from its escape character on, which then is replaced.
        let (piece, after) = sequence.split_at(if is_colour { length + 1 } else { length });
        pieces.push(Piece::Text(before));
        pieces.push(if is_colour { Piece::Colour(piece) } else { Piece::Text(piece) });
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            cursor: "c".into(),
            at: berth_spec::Timestamp(1_795_233_785_042),
            instance: "d/d/shop/web.7".parse().unwrap(),
            process: "web".parse().unwrap(),
            stream: LogStream::Stdout,
            text: text.into(),
        }
    }

    #[test]
    fn colours_pass_and_nothing_else_does() {
        assert_eq!(
            render(&line("\x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;title\x07"), true, true),
            "\x1b[2m04:03:05\x1b[0m \x1b[32mweb.7   \x1b[0m \
             \x1b[1;31mred\x1b[0m \u{fffd}[2J\u{fffd}]0;title\u{fffd}\x1b[0m"
        );
        assert_eq!(render(&line("\x1b[1mbold\x1b[0m"), true, false), "04:03:05 web.7    bold");
    }

    #[test]
    fn a_pipe_gets_what_was_written() {
        assert_eq!(render(&line("\x1b[1mx"), false, false), "2026-11-21T04:03:05.042Z web.7 \x1b[1mx");
    }
}
