//! The loop.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use berth_shim::config::{Network, Restart, StartConfig};
use berth_shim::exec::Exec as Request;
use berth_shim::wire::{EXITS_KEPT, Exit, Failure, FromShim, Hello, PROTOCOL, State, Status, Step, ToShim};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

use crate::app::{App, Begun, Pipes, Streams};
use crate::backoff::Waits;
use crate::beside::Beside;
use crate::client::{self, Client, EXECS, Said};
use crate::dialer::Dialer;
use crate::exec::Exec;
use crate::internal::Internal;
use crate::keeper::Keeper;
use crate::log::Log;
use crate::memory::Memory;
use crate::network;
use crate::sandbox;
use crate::sweep::{own_starttime, sweep};
use crate::system::{self, Reaped};
use crate::way_out::Laid;

/// Milliseconds between two looks at what is left of a tree that is being killed: the first, doubling up to the last. What
/// the kernel holds in an uninterruptible sleep may stay for long.
const SWEEP_FIRST: u64 = 5;
const SWEEP_LAST: u64 = 1_000;
/// Milliseconds between two looks at whether the rest of a stopping process group has ended: not all of it are our children.
const WIND_EVERY: u64 = 50;
/// Milliseconds between two tellings that more lines were dropped.
const TELL_EVERY: u64 = 1_000;
/// Bytes read from a pipe at once, and how often in a turn: the clients must be heard while an app floods us.
const READ_AT_ONCE: usize = 64 << 10;
const READS_IN_A_TURN: usize = 16;

/// Where the app is in its life. Times without a name are of the steady clock.
#[derive(Debug)]
enum Phase {
    /// It is started when `until` has come.
    Waiting { until: u64, wall: u64 },
    /// It runs.
    Running { app: App, since: u64, wall: u64 },
    /// It has exited after being told to stop; others of its process group still wind up.
    Winding { group: Pid },
    /// What it left behind is being killed; after that it is started again after `wait`, or never.
    Sweeping { wait: Option<u64>, pause: u64 },
    /// That was it.
    Ended,
}

/// What has happened, beside what is looked at in any case.
#[derive(Debug, Default)]
struct Woken {
    /// Somebody asks for sockets of the instance's network.
    asked: bool,
    /// The kernel says something of the group's memory.
    memory: bool,
}

struct Shim {
    config: StartConfig,
    starttime: u64,
    phase: Phase,
    pipes: Pipes,
    /// The first app, until it is started, and the network that it is started in where that is not the one that this process was born in.
    begun: Option<(Result<Begun, Failure>, Option<OwnedFd>)>,
    /// Hands out sockets of the instance's network, where that is its own.
    dialer: Option<Dialer>,
    /// Keeps the way out, where an ordinary user's instance has one.
    keeper: Option<Keeper>,
    /// What runs beside the app.
    beside: Beside,
    /// When an app is killed that was asked to end because its checks failed.
    unhealthy_until: Option<u64>,
    /// When the tree is killed, once it was told to stop.
    stop_by: Option<u64>,
    /// Whether to exit as soon as the app has ended.
    leave: bool,
    waits: Waits,
    log: Log,
    clients: Vec<Client>,
    /// The number of the last client.
    client: u64,
    restarts: u64,
    exit_count: u64,
    exits: Vec<Exit>,
    /// Watches for kills for want of memory, where those are counted.
    memory: Option<Memory>,
    /// Lines dropped as the clients know it, and when they were told.
    told: (u64, u64),
    buffer: Vec<u8>,
}

/// Runs the instance of `config` to its end.
pub(crate) fn run(config: StartConfig) -> io::Result<()> {
    // A name for people who look at the list of processes, which would show the number of a descriptor.
    rustix::thread::set_name(c"berth-shim")?;
    // The launcher made a session for us already, unless we were started by hand.
    system::unheeded(rustix::process::setsid());
    // From where this process does not get back to.
    let keeper = config.way_out.as_ref().map(|way| Keeper::start(&way.program)).transpose()?;
    if config.sandbox.as_ref().is_some_and(|sandbox| sandbox.as_ordinary_user) {
        sandbox::enter_user_namespace()?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // It needs no network to put up the root, and the app is not started before there is one.
    let begun = Begun::new(&config, Streams::inherited(&config)?, true);
    let own_network = config.network == Network::Own && !config.is_in_network;
    let network = if own_network { Some(network::enter(config.namespace)?) } else { None };
    let laid = config.way_out.as_ref().map(Laid::make).transpose()?;
    // Before the app is started, which may call others at once.
    let internal = Internal::of(&config)?;
    if let (Some(laid), Some(keeper)) = (laid, &keeper) {
        // In time or not: an app that starts without it finds it later.
        let _is_up = laid.lead_out(keeper)?;
    }
    let listener = system::listener(config.listener)?;
    listener.set_nonblocking(true)?;
    let signals = system::signals()?;
    let now = system::steady();
    let mut shim = Shim {
        starttime: own_starttime(),
        phase: Phase::Waiting { until: now, wall: system::wall() },
        pipes: [None, None],
        begun: Some((begun, network)),
        dialer: Dialer::inherited(&config, internal)?,
        keeper,
        beside: Beside::new(&config),
        unhealthy_until: None,
        stop_by: None,
        leave: false,
        waits: Waits::new(config.backoff),
        log: Log::new(PathBuf::from(&config.log_dir), config.log, now),
        clients: Vec::new(),
        client: 0,
        restarts: 0,
        exit_count: 0,
        exits: Vec::new(),
        memory: config.sandbox.as_ref().and_then(|sandbox| Memory::watch(sandbox.oom_counter.as_deref()?)),
        told: (0, now),
        buffer: Vec::new(),
        config,
    };
    while !(shim.leave && matches!(shim.phase, Phase::Ended)) {
        shim.turn(&listener, &signals)?;
    }
    Ok(())
}

impl Shim {
    fn turn(&mut self, listener: &UnixListener, signals: &OwnedFd) -> io::Result<()> {
        let (now, wall) = (system::steady(), system::wall());
        let life = self.advance(now);
        let log = self.log.tick(now, wall);
        let memory = self.memory.as_ref().and_then(|memory| memory.look_in(now));
        let woken = self.wait(listener, signals, [life, log, memory].into_iter().flatten().min())?;
        if woken.asked
            && let Some(dialer) = &mut self.dialer
        {
            dialer.serve();
        }
        let killed = self.memory.as_mut().map_or(0, |memory| memory.fresh(woken.memory, system::steady()));
        self.killed(killed);
        if system::told_to_end(signals) {
            self.leave = true;
            self.stop(self.config.stop_signal, self.config.kill_after);
        }
        self.pump();
        if let Phase::Running { app, .. } = &self.phase
            && let Some(ended) = app.told()
        {
            self.reaped_app(&ended);
        }
        while let Some(reaped) = system::reap() {
            if self.keeper.as_ref().is_some_and(|keeper| keeper.pid == reaped.pid) {
                // There is no other way back to it than another shim.
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.beside.reaped(reaped.pid);
            self.reaped(&reaped);
        }
        self.hear();
        self.serve(listener);
        Ok(())
    }

    /// Hears what runs beside the app.
    fn hear(&mut self) {
        let now = system::steady();
        let (ends, is_news) = self.beside.hear(now);
        for (number, exit) in ends {
            let client = self.clients.iter_mut().find(|client| client.number == number);
            client.into_iter().for_each(|client| client.tell(&FromShim::Executed(exit)));
        }
        if is_news {
            self.clients.iter_mut().for_each(|client| client.stale = true);
        }
        if let Some(check) = self.config.check.as_ref().filter(|_| self.beside.is_unhealthy())
            && matches!(self.phase, Phase::Running { .. })
            && self.unhealthy_until.is_none()
            && self.stop_by.is_none()
        {
            self.unhealthy_until = Some(now.saturating_add(check.kill_after));
            self.signal(check.stop_signal);
        }
    }

    /// Does what has come due, and gives the milliseconds until more does.
    fn advance(&mut self, now: u64) -> Option<u64> {
        let kept = self.keeper.as_ref().map(|keeper| keeper.pid);
        loop {
            let stop_in = self.stop_by.map(|by| by.saturating_sub(now));
            let beside = match &self.phase {
                Phase::Running { app, .. } => self.beside.advance(&self.config, app, now),
                _ => self.beside.sweep(now),
            };
            let unhealthy_in = self.unhealthy_until.map(|until| until.saturating_sub(now));
            match &mut self.phase {
                Phase::Waiting { .. } if stop_in.is_some() => self.enter(Phase::Ended),
                Phase::Waiting { until, .. } if *until > now => return Some(*until - now),
                Phase::Waiting { .. } => self.start(now),
                Phase::Running { .. } if [stop_in, unhealthy_in].contains(&Some(0)) => {
                    sweep(self.config.cgroup.as_deref(), kept);
                    return Some(SWEEP_LAST);
                }
                Phase::Running { .. } => return [stop_in, unhealthy_in, beside].into_iter().flatten().min(),
                Phase::Winding { group } => {
                    let left = stop_in.unwrap_or(0);
                    if left == 0 || rustix::process::test_kill_process_group(*group).is_err() {
                        self.enter(Phase::Sweeping { wait: None, pause: SWEEP_FIRST });
                    } else {
                        return Some(left.min(WIND_EVERY));
                    }
                }
                Phase::Sweeping { pause, .. } if sweep(self.config.cgroup.as_deref(), kept) > 0 => {
                    *pause = (*pause * 2).min(SWEEP_LAST);
                    return Some(*pause);
                }
                Phase::Sweeping { wait, .. } => {
                    let wait = wait.filter(|_| stop_in.is_none());
                    self.drain();
                    self.enter(match wait {
                        Some(wait) => Phase::Waiting { until: now + wait, wall: system::wall() + wait },
                        None => Phase::Ended,
                    });
                }
                Phase::Ended => return None,
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.clients.iter_mut().for_each(|client| client.stale = true);
    }

    fn start(&mut self, now: u64) {
        self.restarts += u64::from(self.exit_count > 0);
        let started = match self.begun.take() {
            Some((begun, network)) => begun.and_then(|begun| begun.go(&self.config, network.as_ref())),
            None => App::start(&self.config, None, false),
        };
        match started {
            Ok((app, pipes)) => {
                self.pipes = pipes;
                self.beside.begin(now);
                self.enter(Phase::Running { app, since: now, wall: system::wall() });
            }
            Err(failure) => {
                let exit =
                    Exit { at: system::wall(), code: Some(127), failure: Some(failure), ..Exit::default() };
                self.exited(exit);
            }
        }
    }

    fn reaped(&mut self, reaped: &Reaped) {
        if let Phase::Running { app, .. } = &self.phase
            && let Some(ended) = app.ended_with(reaped)
        {
            self.reaped_app(&ended);
        }
    }

    fn reaped_app(&mut self, reaped: &Reaped) {
        let Phase::Running { app, since, .. } = &self.phase else {
            return;
        };
        let exit = Exit {
            at: system::wall(),
            pid: reaped.pid,
            code: reaped.code,
            signal: reaped.signal,
            core: reaped.core,
            uptime: system::steady().saturating_sub(*since),
            max_rss: reaped.max_rss,
            failure: app.failure(),
            stopped: self.stop_by.is_some(),
            oom: self.ran_out_of_memory(),
            unhealthy: self.unhealthy_until.is_some(),
        };
        self.exited(exit);
    }

    /// Whether the kernel has killed in the app's group for want of memory since the app last exited.
    fn ran_out_of_memory(&mut self) -> Option<bool> {
        let (ran_out, fresh) = self.memory.as_mut()?.exited(system::steady());
        self.killed(fresh);
        Some(ran_out)
    }

    /// Says in the log that the kernel has killed so many processes.
    fn killed(&mut self, count: u64) {
        let what = match count {
            0 => return,
            1 => "a process".to_owned(),
            count => format!("{count} processes"),
        };
        let line = format!("[memory ran out: the kernel ended {what} of this instance]");
        self.log.say(&line, system::wall());
        self.clients.iter_mut().for_each(|client| client.stale = true);
    }

    fn exited(&mut self, exit: Exit) {
        self.exit_count += 1;
        self.unhealthy_until = None;
        self.beside.end();
        if self.exits.len() >= EXITS_KEPT {
            self.exits.remove(0);
        }
        self.exits.push(exit);
        let wait = match self.config.restart {
            Restart::Always => Some(self.waits.after(exit.uptime)),
            Restart::Never => None,
        };
        let group = i32::try_from(exit.pid).ok().and_then(Pid::from_raw);
        self.enter(match group {
            Some(group) if self.stop_by.is_some() => Phase::Winding { group },
            _ => Phase::Sweeping { wait, pause: SWEEP_FIRST },
        });
    }

    /// Asks the app's process group to end, and sets when all of it is killed. Told again, the earlier time holds.
    fn stop(&mut self, signal: i32, kill_after: u64) {
        let by = system::steady().saturating_add(kill_after);
        self.stop_by = Some(self.stop_by.map_or(by, |earlier| earlier.min(by)));
        self.beside.end_checks();
        self.signal(signal);
        self.clients.iter_mut().for_each(|client| client.stale = true);
    }

    /// Sends the app's process group a signal.
    fn signal(&self, signal: i32) {
        if let (Phase::Running { app, .. }, Some(signal)) = (&self.phase, Signal::from_named_raw(signal))
            && let Some(group) = i32::try_from(app.pid).ok().and_then(Pid::from_raw)
            && rustix::process::kill_process_group(group, signal).is_err()
        {
            // It has not made its session yet. The signal waits for it to be reset to its default.
            system::unheeded(rustix::process::kill_process(group, signal));
        }
    }

    /// Reads what the app wrote, as much as one turn allows.
    fn pump(&mut self) {
        let (now, wall) = (system::steady(), system::wall());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_AT_ONCE, 0);
        for index in 0..self.pipes.len() {
            for _ in 0..READS_IN_A_TURN {
                let Some(pipe) = &self.pipes[index] else {
                    break;
                };
                match rustix::io::read(pipe, &mut buffer[..]) {
                    Ok(0) => {
                        self.log.end(index, now, wall);
                        self.pipes[index] = None;
                    }
                    Ok(length) => self.log.feed(index, &buffer[..length], now, wall),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        self.log.flush(now);
        self.buffer = buffer;
    }

    /// Takes the last of an app's output, once nobody is left to write more. A pipe holds at most 1 MiB.
    fn drain(&mut self) {
        self.pump();
        let (now, wall) = (system::steady(), system::wall());
        for index in 0..self.pipes.len() {
            self.log.end(index, now, wall);
        }
        self.log.finish(now, wall);
        self.pipes = [None, None];
    }

    /// Waits until something happens.
    fn wait(&self, listener: &UnixListener, signals: &OwnedFd, timeout: Option<u64>) -> io::Result<Woken> {
        let mut polled = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        polled.extend(self.pipes.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        if let Phase::Running { app, .. } = &self.phase {
            polled.extend(app.init().map(|init| PollFd::new(init, PollFlags::IN)));
        }
        polled.extend(self.clients.iter().map(|client| {
            let more = if client.has_more() { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(client, PollFlags::IN | more)
        }));
        polled.extend(self.beside.polled());
        let memory = polled.len();
        polled.extend(self.memory.as_ref().and_then(Memory::polled));
        let dialer = polled.len();
        polled.extend(self.dialer.iter().flat_map(Dialer::polled));
        let timeout = timeout.map(|millis| Timespec {
            tv_sec: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {
                let any = |of: &[PollFd<'_>]| of.iter().any(|polled| !polled.revents().is_empty());
                Ok(Woken { asked: any(&polled[dialer..]), memory: any(&polled[memory..dialer]) })
            }
            Err(rustix::io::Errno::INTR) => Ok(Woken::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn serve(&mut self, listener: &UnixListener) {
        let mut clients = std::mem::take(&mut self.clients);
        let mut number = self.client;
        client::accept(listener, &mut clients, &mut number, &|| FromShim::Hello(self.hello()).encode());
        self.client = number;
        let mut said = Vec::new();
        clients.retain_mut(|client| match client.read() {
            Some(read) => {
                client.stale |= read.iter().any(|said| matches!(said, Said::Order(ToShim::Query)));
                said.extend(read.into_iter().map(|said| (client.number, said)));
                true
            }
            None => false,
        });
        self.clients = clients;
        for (client, said) in said {
            match said {
                Said::Signal(signal) => self.beside.signal(client, signal),
                Said::Order(order) => self.obey(order),
                Said::Exec(request, streams) => self.execute(client, &request, streams),
            }
        }
        let clients = &self.clients;
        self.beside.keep(|number| clients.iter().any(|client| client.number == number));
        self.tell();
    }

    /// Runs a command beside the app, for a client.
    fn execute(&mut self, client: u64, request: &Request, streams: [OwnedFd; 3]) {
        let started = match &self.phase {
            Phase::Running { app, .. } if self.stop_by.is_none() && self.beside.asked() < EXECS => {
                let streams = Streams::handed(streams, request.terminal);
                Exec::start(&self.config, app, &request.argv, &request.env, streams)
            }
            Phase::Running { .. } => Err(Failure { step: Step::Fork, errno: libc::EBUSY }),
            _ => Err(Failure { step: Step::Fork, errno: libc::ESRCH }),
        };
        match started {
            Ok(exec) => self.beside.add(client, exec),
            Err(failure) => {
                let exit = Exit { code: Some(127), failure: Some(failure), ..Exit::default() };
                let asked = self.clients.iter_mut().find(|asked| asked.number == client);
                asked.into_iter().for_each(|asked| asked.tell(&FromShim::Executed(exit)));
            }
        }
    }

    fn obey(&mut self, command: ToShim) {
        match command {
            ToShim::Stop { signal, kill_after } => self.stop(signal, kill_after),
            ToShim::Kill => self.stop(libc::SIGKILL, 0),
            ToShim::Signal { signal } => self.signal(signal),
            ToShim::Query => {}
            ToShim::Leave => self.leave |= matches!(self.phase, Phase::Ended),
        }
    }

    fn tell(&mut self) {
        let now = system::steady();
        if self.told.0 != self.log.dropped && now >= self.told.1 + TELL_EVERY {
            self.told = (self.log.dropped, now);
            self.clients.iter_mut().for_each(|client| client.stale = true);
        }
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain_mut(|client| client.write(&|| FromShim::Status(self.status()).encode()));
        self.clients = clients;
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            instance: self.config.instance.clone(),
            token: self.config.token,
            pid: std::process::id(),
            starttime: self.starttime,
            status: self.status(),
        }
    }

    fn status(&self) -> Status {
        let stopping = self.stop_by.is_some();
        let state = match &self.phase {
            Phase::Ended => State::Ended,
            _ if stopping => State::Stopping,
            Phase::Running { app, wall, .. } => State::Running { pid: app.pid, since: *wall },
            Phase::Waiting { wall, .. } if self.exit_count > 0 => State::BackingOff { until: *wall },
            Phase::Waiting { .. } | Phase::Sweeping { wait: Some(_), .. } => State::Starting,
            Phase::Sweeping { wait: None, .. } | Phase::Winding { .. } => State::Stopping,
        };
        Status {
            state,
            restarts: self.restarts,
            exit_count: self.exit_count,
            exits: self.exits.clone(),
            dropped: self.log.dropped,
            checked: self.beside.checked().cloned(),
            oom_kills: self.memory.as_ref().map_or(0, Memory::kills),
        }
    }
}
