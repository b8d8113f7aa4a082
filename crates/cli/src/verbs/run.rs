//! `run` and `exec`: a one-off command, as if it ran in this terminal.

mod keyboard;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use berth_contract::client::{FromRun, ToRun};
use berth_contract::run::{Frame, INPUT_WINDOW, RunEnded, StartRun, TerminalSize};
use berth_contract::{Code, ExitStatus, InstanceList, InstanceState};
use berth_spec::name::RUN_PROCESS;
use berth_spec::{AppId, EnvName};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::keyboard::{Keyboard, RawTerminal};
use super::Session;
use crate::args::{ExecArgs, RunArgs};
use crate::failure::Failure;
use crate::status::Status;

impl Session<'_> {
    pub(super) async fn run(&mut self, args: RunArgs) -> Result<Status, Failure> {
        let app = self.app_id(&args.of)?;
        let terminal = if args.detach { None } else { terminal_size() };
        let start = StartRun {
            command: args.command,
            env: self.variables(args.env, terminal),
            release: args.release,
            within: None,
            detach: args.detach,
            terminal,
            limit_s: args.limit.map(|limit| limit.0.div_ceil(1_000)),
        };
        if start.detach {
            return self.run_detached(&app, &start).await;
        }
        if self.json {
            let detail = "--json needs --detach: what the command writes is all that is printed";
            return Err(Failure::local(Code::UsageInvalid, detail, "leave one of them out, or give both"));
        }
        let connection = self.client.run_attached(&app, &start).await?;
        converse(connection, start.terminal.is_some()).await
    }

    pub(super) async fn exec(&mut self, args: ExecArgs) -> Result<Status, Failure> {
        let app = self.app_id(&args.of)?;
        if self.json {
            let detail = "exec has no --json: what the command writes is all that is printed";
            return Err(Failure::local(Code::UsageInvalid, detail, "leave it out"));
        }
        let instance = match args.instance {
            Some(name) => name,
            None => first_that_runs(&self.client.instances(&app).await?)?,
        };
        let terminal = terminal_size();
        let start = StartRun {
            command: args.command,
            env: self.variables(args.env, terminal),
            release: None,
            within: Some(instance),
            detach: false,
            terminal,
            limit_s: None,
        };
        let connection = self.client.run_attached(&app, &start).await?;
        converse(connection, terminal.is_some()).await
    }

    /// What was given, and the kind of the terminal if there is one.
    fn variables(
        &self,
        given: Vec<(EnvName, String)>,
        terminal: Option<TerminalSize>,
    ) -> BTreeMap<EnvName, String> {
        let mut env: BTreeMap<EnvName, String> = given.into_iter().collect();
        if let Some(kind) = self.environment.variable("TERM").filter(|_| terminal.is_some()) {
            let name = EnvName::new("TERM").expect("it is a name");
            env.entry(name).or_insert_with(|| kind.to_string_lossy().into_owned());
        }
        env
    }

    async fn run_detached(&mut self, app: &AppId, start: &StartRun) -> Result<Status, Failure> {
        let run = self.client.run_detached(app, start).await?;
        let status = self.show(&run, |session| {
            let name = run.id.short();
            session.screen.line(&format!("{name} of {} runs", app.app))?;
            session.hint(&format!(
                "`berth logs -f -i {name}` shows what it writes, `berth why {name}` how it ended"
            ))
        })?;
        Ok(status.into())
    }
}

/// The name of the first instance that runs: of web before others, a ready one before others.
fn first_that_runs(list: &InstanceList) -> Result<String, Failure> {
    let runs = list.instances.iter().filter(|it| it.pid.is_some() && it.process.as_str() != RUN_PROCESS);
    let first = runs.min_by_key(|it| {
        (!it.process.is_web(), it.state != InstanceState::Ready, &it.process, it.id.ordinal)
    });
    first.map(|it| it.id.short()).ok_or_else(|| {
        let next = "`berth ps` shows the instances; `berth run` starts one for the command";
        Failure::local(Code::InstanceNotFound, "no instance of the app runs", next)
    })
}

/// The size of the terminal that both input and output are; none when one of them is something else.
fn terminal_size() -> Option<TerminalSize> {
    let (input, output) = (io::stdin(), io::stdout());
    if !input.is_terminal() || !output.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&output).ok()?;
    // A terminal that does not know its size is taken for the classic one.
    let or = |size: u16, classic: u16| if size == 0 { classic } else { size };
    Some(TerminalSize { rows: or(size.ws_row, 24), columns: or(size.ws_col, 80) })
}

/// The signals that are the command's business.
struct Signals {
    resized: Signal,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// What the next signal has to be told to the command as.
    async fn next(&mut self) -> Frame {
        loop {
            tokio::select! {
                _ = self.resized.recv() => match terminal_size() {
                    Some(size) => return Frame::Resize(size),
                    None => continue,
                },
                _ = self.interrupt.recv() => return Frame::Signal(2),
                _ = self.terminate.recv() => return Frame::Signal(15),
                _ = self.hang_up.recv() => return Frame::Signal(1),
                _ = self.quit.recv() => return Frame::Signal(3),
            }
        }
    }
}

/// Passes on what is typed, written and signalled until the command has ended. Its exit status is ours.
async fn converse((mut from, mut to): (FromRun, ToRun), terminal: bool) -> Result<Status, Failure> {
    let mut signals = Signals::listen()?;
    // From here on every key is the command's, Ctrl-C too; restored when it is dropped.
    let raw = terminal.then(RawTerminal::enter).transpose()?;
    let mut keyboard = Keyboard::listen()?;
    let mut credit = INPUT_WINDOW;
    let mut told_to_end = 0_u32;
    let ended = loop {
        tokio::select! {
            frame = from.next() => match frame {
                Some(Frame::Output(bytes)) => print(io::stdout(), &bytes)?,
                Some(Frame::Errors(bytes)) => print(io::stderr(), &bytes)?,
                Some(Frame::Taken(count)) => credit += usize::try_from(count).unwrap_or(0),
                Some(Frame::Ended(ended)) => break Some(ended),
                Some(_) => {}
                None => break None,
            },
            typed = keyboard.next(credit), if credit > 0 => {
                let frame = match typed {
                    Some(bytes) => {
                        credit -= bytes.len();
                        Frame::Input(bytes)
                    }
                    None => Frame::InputEnd,
                };
                // What became of the connection the other direction finds out.
                drop(to.send(&frame).await);
            }
            frame = signals.next() => {
                if let Frame::Signal(number) = &frame {
                    told_to_end += 1;
                    if told_to_end > 2 {
                        // Who insists wants to leave, and what nobody is connected to ends.
                        return Ok(Status::Program(128_u8.saturating_add(*number)));
                    }
                }
                drop(to.send(&frame).await);
            }
        }
    };
    drop(raw);
    match ended {
        Some(ended) => Ok(told(&ended)),
        None => Err(Failure::local(
            Code::Unreachable,
            "the connection to the platform was lost, and the command ends with it",
            "`berth status` shows whether the platform runs; `berth run --detach` needs no connection",
        )),
    }
}

/// Writes all of it, also where the other end takes a little at a time. A reader that is gone ends us as it would end the command.
fn print(mut stream: impl io::Write, bytes: &[u8]) -> Result<(), Failure> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(Failure::Output)
}

/// What to end with, and a word on what the platform did to it.
fn told(ended: &RunEnded) -> Status {
    if let Some(why) = &ended.why {
        drop(writeln!(io::stderr(), "berth: the command was ended: {why}"));
    }
    let number = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match (ended.status, ended.signal) {
        (Some(status), _) => Status::Program(number(status)),
        (None, Some(signal)) => Status::Program(128_u8.saturating_add(number(signal))),
        (None, None) => Status::Own(ExitStatus::Failed),
    }
}
