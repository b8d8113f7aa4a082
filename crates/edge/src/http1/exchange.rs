//! One request and its answer, from the first byte read to the last one written.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Method, Version};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use berth_routing::balance::{Attempt, is_idempotent};

use crate::answer::{Reason, refuse};
use crate::backend::InFlight;
use crate::before::{Before, before_the_app};
use crate::client::{Busy, Client, Origin, linger};
use crate::client_stream::ClientStream;
use crate::forward::{Tried, is_our_own, target_of};
use crate::http1::message::put;
use crate::http1::response::{ANSWER_HEAD_MAX, Body};
use crate::http1::sockets::{BUFFER, Buffer, ClientSocket, LARGE_BUFFER, poll_read};
use crate::http1::{request, response};
use crate::record::Record;
use crate::strict::Phase;
use crate::upstream::UpstreamStream;
use crate::worker::Worker;

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// It waits for the next one, of which nothing came yet.
    Idle,
    /// There is more.
    More,
    /// It is over.
    Over,
    /// It is to go on elsewhere, with the request of which so much was tried.
    GiveUp(Tried),
}

/// A client's request, from its first byte to the last one of its answer, and what came after it.
pub(crate) struct Exchange<'c> {
    worker: &'c Rc<Worker>,
    client: &'c Client,
    origin: &'c Origin,
    closing: &'c Cell<bool>,
    /// What the client sent, from the beginning of the request that is under way.
    input: Buffer,
    /// How much of it belongs to that request.
    request_len: usize,
    /// What goes out next, to either side.
    out: Buffer,
}

/// A request that was sent.
struct Sent {
    app: UpstreamStream,
    lease: InFlight,
    record: Box<Record>,
    head: request::Head,
    /// Whether the connection served others before.
    reused: bool,
    hsts: u32,
    _busy: Busy,
}

/// Why there is no answer.
enum Failure {
    /// The client left.
    Left,
    /// The app broke off, after so many bytes of an answer.
    Broken { came: usize },
    /// What came is no answer of HTTP/1.
    Malformed,
    /// It took too long.
    TimedOut,
}

/// One of the two sides is gone.
struct Broken;

impl<'c> Exchange<'c> {
    pub(crate) fn new(
        worker: &'c Rc<Worker>,
        client: &'c Client,
        origin: &'c Origin,
        closing: &'c Cell<bool>,
    ) -> Self {
        let (input, out) = (worker.buffers().get(), worker.buffers().get());
        Self { worker, client, origin, closing, input, request_len: 0, out }
    }

    /// What came from the client and was not answered.
    pub(crate) fn into_unread(self) -> Vec<u8> {
        self.input.into_bytes()
    }

    /// Answers the next request.
    pub(crate) async fn next<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>) -> Next {
        let head = match self.head(stream).await {
            Ok(head) => head,
            Err(next) => return next,
        };
        let mut sent = match self.send(head).await {
            Ok(sent) => sent,
            Err(tried) => return Next::GiveUp(tried),
        };
        let mut buffer = self.worker.buffers().get();
        let answer = match self.answer(stream, &mut sent, &mut buffer).await {
            Ok(answer) => answer,
            Err(failure) => return self.fail(stream, sent, &failure).await,
        };
        self.request_ends();
        match self.pass_on(stream, sent, answer, buffer).await {
            Ok(closes) => self.after(stream, closes).await,
            // Whoever broke off, the other one sees it by the end of the connection.
            Err(Broken) => Next::Over,
        }
    }

    /// What the client sent of the request is not needed any more.
    fn request_ends(&mut self) {
        let len = std::mem::take(&mut self.request_len);
        self.input.drain(..len);
    }

    /// What becomes of the connection after an answer that said whether it `closes`.
    async fn after<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>, closes: bool) -> Next {
        if !closes {
            return if self.input.is_empty() { Next::Idle } else { Next::More };
        }
        if stream.shutdown().await.is_ok() && !self.input.is_empty() {
            linger(stream).await;
        }
        Next::Over
    }

    /// Reads until there is a whole request.
    async fn head<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>) -> Result<request::Head, Next> {
        let head = loop {
            if !self.input.is_empty() {
                stream.progress().set_phase(Phase::Head);
                match request::parse(&self.input, &mut self.out) {
                    request::Parsed::Whole(head) => break head,
                    request::Parsed::Partial if self.input.len() < BUFFER => {}
                    request::Parsed::Partial | request::Parsed::Unusual => {
                        return Err(Next::GiveUp(Tried::default()));
                    }
                }
            }
            self.read(stream).await?;
        };
        stream.progress().head_came();
        let Some(len) = usize::try_from(head.body).ok().and_then(|body| body.checked_add(head.len)) else {
            return Err(Next::GiveUp(Tried::default()));
        };
        // A body that is still on its way is passed on as it comes, both ways at once: by hyper.
        if self.input.len() < len {
            return Err(Next::GiveUp(Tried::default()));
        }
        self.request_len = len;
        stream.progress().set_phase(Phase::Idle);
        Ok(head)
    }

    async fn read<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>) -> Result<(), Next> {
        poll_fn(|cx| {
            // A socket may wake us for what is no request, such as a part of a record of TLS.
            if self.input.is_empty() && self.closing.get() {
                return Poll::Ready(Err(Next::Idle));
            }
            poll_read(stream, &mut self.input, cx).map(|read| match read {
                Ok(1..) => Ok(()),
                // Nobody is there to be told that a request was not whole.
                Ok(0) | Err(_) => Err(Next::Over),
            })
        })
        .await
    }

    /// Has an instance take the request; what was tried when it needs more than that.
    async fn send(&mut self, head: request::Head) -> Result<Sent, Tried> {
        let (worker, started) = (self.worker, self.worker.now());
        let busy = self.client.busy();
        let hsts = match before_the_app(worker, self.origin, &head.host, &head.uri) {
            Before::Go { hsts } => hsts,
            Before::Prove(_) | Before::Redirect(_) | Before::Refuse(_) => return Err(Tried::default()),
        };
        let target = target_of(self.origin, &head.host).map_err(|_hyper_says_why| Tried::default())?;
        let line = (head.method.clone(), head.uri.clone(), Version::HTTP_11);
        let mut record = Record::new(worker, self.origin, started, line);
        let Some(lease) = worker.choose_plainly(&target, &mut record) else {
            record.forget();
            return Err(Tried::default());
        };
        record.set_host(head.host.clone());
        let repeatable = head.body == 0 && is_idempotent(head.method.as_str());
        if !repeatable {
            // As in `forward`: to look at the sockets first finds what was closed a moment ago.
            tokio::task::yield_now().await;
        }
        let (app, reused) = match worker.pooled_stream(&lease, repeatable) {
            Some(app) => (app, true),
            None => match worker.open(&lease).await {
                Ok(app) => (app, false),
                Err(error) => {
                    if !is_our_own(&error) {
                        worker.judge(lease.backend(), false);
                    }
                    record.forget();
                    return Err(Tried { unreachable: Some(lease.backend().key), ..Tried::default() });
                }
            },
        };
        head.finish(self.origin, record.id(), &mut self.out);
        self.out.extend_from_slice(self.input.get(head.len..self.request_len).unwrap_or_default());
        Ok(Sent { app, lease, record, head, reused, hsts, _busy: busy })
    }

    /// Writes the request and reads the head of its answer into `buffer`; what goes to the client is in `out` then.
    async fn answer<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        sent: &mut Sent,
        buffer: &mut Buffer,
    ) -> Result<response::Head, Failure> {
        let limit = sent.record.request_timeout(sent.lease.backend());
        let asked = self.ask(stream, &mut sent.app, &sent.head, buffer);
        match limit {
            None => asked.await,
            Some(limit) => tokio::time::timeout(limit, asked).await.unwrap_or(Err(Failure::TimedOut)),
        }
    }

    async fn ask<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        app: &mut UpstreamStream,
        head: &request::Head,
        buffer: &mut Buffer,
    ) -> Result<response::Head, Failure> {
        app.write_all(&self.out).await.map_err(|_broken| Failure::Broken { came: 0 })?;
        let mut came = 0;
        loop {
            match self.listen(stream, app, buffer).await? {
                Ok(count @ 1..) => came += count,
                Ok(0) | Err(_) => return Err(Failure::Broken { came }),
            }
            loop {
                match response::parse(buffer, head.method == Method::HEAD, &mut self.out) {
                    response::Parsed::Whole(head) => return Ok(head),
                    response::Parsed::Interim(len) => drop(buffer.drain(..len)),
                    response::Parsed::Partial if buffer.len() < ANSWER_HEAD_MAX => break,
                    response::Parsed::Partial | response::Parsed::Wrong => {
                        return Err(Failure::Malformed);
                    }
                }
            }
            if buffer.len() == buffer.capacity() {
                buffer.reserve(BUFFER);
            }
        }
    }

    /// Reads from the app, and looks whether the client is still there.
    async fn listen<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        app: &mut UpstreamStream,
        buffer: &mut Vec<u8>,
    ) -> Result<io::Result<usize>, Failure> {
        poll_fn(|cx| {
            if let Poll::Ready(read) = poll_read(app, buffer, cx) {
                return Poll::Ready(Ok(read));
            }
            self.poll_left(stream, cx).map(|()| Err(Failure::Left))
        })
        .await
    }

    /// Comes true when the client has left while an answer is waited for.
    fn poll_left<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>, cx: &mut Context<'_>) -> Poll<()> {
        // Once its next request is here, or a part of it, nobody asks whether it waits for this one's answer.
        if self.input.len() != self.request_len || self.input.len() >= BUFFER {
            return Poll::Pending;
        }
        let before = self.input.len();
        match poll_read(stream, &mut self.input, cx) {
            Poll::Ready(Ok(_)) if self.input.len() > before => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Answers that there is no answer, or leaves the request to hyper where it may be sent again.
    async fn fail<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        sent: Sent,
        failure: &Failure,
    ) -> Next {
        let Sent { app, lease, record, head, reused, hsts, _busy } = sent;
        // So that the app hears of it now and not when the client has its answer.
        drop(app);
        let reason = match failure {
            Failure::Left => return Next::Over,
            Failure::TimedOut => Reason::TimedOut,
            Failure::Malformed => Reason::BadAnswer,
            Failure::Broken { came } => {
                let (idempotent, has_body) = (is_idempotent(head.method.as_str()), head.body > 0);
                let attempt = Attempt { idempotent, has_body, reused, nothing_sent: false, repeated: false };
                if *came == 0 && attempt.may_repeat() && record.may_repeat() {
                    record.forget();
                    return Next::GiveUp(Tried { sent: true, ..Tried::default() });
                }
                Reason::NoAnswer
            }
        };
        // A connection that idled may be closed by an instance that is well.
        if !reused || reason != Reason::NoAnswer {
            self.worker.judge(lease.backend(), false);
        }
        let mut answer = refuse(reason, request::accept(&self.input).as_ref(), record);
        self.request_ends();
        let text = match answer.body_mut().frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            _ => bytes::Bytes::new(),
        };
        self.out.clear();
        put(&mut self.out, &[b"HTTP/1.1 ", answer.status().to_string().as_bytes(), b"\r\n"]);
        for (name, value) in answer.headers() {
            put(&mut self.out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        self.put_hsts(hsts);
        let closes = self.end_head(&head, false);
        self.out.extend_from_slice(&text);
        match self.write(stream).await {
            Ok(()) => self.after(stream, closes).await,
            Err(Broken) => Next::Over,
        }
    }

    fn put_hsts(&mut self, seconds: u32) {
        if seconds > 0 {
            let seconds = seconds.to_string();
            put(&mut self.out, &[b"strict-transport-security: max-age=", seconds.as_bytes(), b"\r\n"]);
        }
    }

    /// Ends the head of an answer, and says whether the connection ends after it.
    fn end_head(&mut self, request: &request::Head, is_dated: bool) -> bool {
        if !is_dated {
            put(&mut self.out, &[b"date: ", &self.worker.date(), b"\r\n"]);
        }
        let closes = request.closes || self.closing.get() || self.worker.is_draining();
        if closes {
            self.out.extend_from_slice(b"connection: close\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        closes
    }

    /// Passes the answer on whose head is in `out`, and of which `buffer` has the beginning. Says whether the connection ends after it.
    async fn pass_on<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        sent: Sent,
        answer: response::Head,
        mut buffer: Buffer,
    ) -> Result<bool, Broken> {
        let Sent { mut app, mut lease, mut record, head, hsts, _busy, .. } = sent;
        let response::Head { len, status, mut body, keeps, dated, secured, streams } = answer;
        self.worker.judge(lease.backend(), status < 500);
        record.served(status, lease.backend());
        if streams {
            lease.stand();
        }
        self.put_hsts(if secured { 0 } else { hsts });
        let closes = self.end_head(&head, dated);
        let first = self.take_part(&mut body, buffer.get(len..).unwrap_or_default(), &mut record);
        let Ok(mut clean) = first else {
            // As far as it was an answer.
            self.write(stream).await?;
            return Err(Broken);
        };
        if body.is_long(LARGE_BUFFER / 4) {
            self.write(stream).await?;
            if stream.is_plain() {
                self.splice(stream, &app, &mut body, &mut record).await?;
            }
            if !body.has_ended() {
                buffer = self.worker.buffers().get_large().unwrap_or(buffer);
            }
        }
        while !body.has_ended() {
            self.write(stream).await?;
            buffer.clear();
            match self.listen(stream, &mut app, &mut buffer).await {
                // Without a copy: what is framed already goes on from where it was read to.
                Ok(Ok(1..)) if !matches!(body, Body::UntilClose) => {
                    let taken = taken(&mut body, &buffer, &mut record)?;
                    clean = taken == buffer.len();
                    write(stream, buffer.get(..taken).unwrap_or_default()).await?;
                }
                Err(_left) => return Err(Broken),
                Ok(Ok(0)) if matches!(body, Body::UntilClose) => {
                    self.out.extend_from_slice(b"0\r\n\r\n");
                    break;
                }
                // It must not look complete.
                Ok(Ok(0) | Err(_)) => {
                    record.cut();
                    return Err(Broken);
                }
                Ok(Ok(_)) => clean = self.take_part(&mut body, &buffer, &mut record)?,
            }
        }
        if clean && keeps {
            self.worker.keep_stream(lease.backend().key, app);
        }
        self.write(stream).await?;
        record.finish();
        Ok(closes)
    }

    /// Passes on what is left of a body whose length is known, from socket to socket (decision 0049); all of it, unless it cannot be done so.
    async fn splice<S: ClientSocket>(
        &mut self,
        stream: &mut ClientStream<S>,
        app: &UpstreamStream,
        body: &mut Body,
        record: &mut Record,
    ) -> Result<(), Broken> {
        let Body::Length(left) = body else { return Ok(()) };
        let Some(mut pipe) = self.worker.pipes().get() else { return Ok(()) };
        let mut began = false;
        poll_fn(|cx| {
            loop {
                if !pipe.is_empty() {
                    ready!(stream.poll_empty(&mut pipe, cx)).map_err(|_left| Broken)?;
                } else if *left == 0 {
                    return Poll::Ready(Ok(()));
                } else if let Poll::Ready(filled) = app.poll_fill(&mut pipe, *left, cx) {
                    match filled {
                        Ok(count @ 1..) => {
                            began = true;
                            *left -= count as u64;
                            record.add_bytes(count);
                        }
                        // A kind of socket that the kernel does not do it with.
                        Err(_) if !began => return Poll::Ready(Ok(())),
                        // It must not look complete.
                        Ok(0) | Err(_) => {
                            record.cut();
                            return Poll::Ready(Err(Broken));
                        }
                    }
                } else {
                    return self.poll_left(stream, cx).map(|()| Err(Broken));
                }
            }
        })
        .await
    }

    /// Puts what belongs to the body among `bytes` into `out`, and says whether that is all of them.
    fn take_part(&mut self, body: &mut Body, bytes: &[u8], record: &mut Record) -> Result<bool, Broken> {
        let taken = taken(body, bytes, record)?;
        let part = bytes.get(..taken).unwrap_or_default();
        match body {
            Body::UntilClose if part.is_empty() => {}
            Body::UntilClose => {
                put(&mut self.out, &[format!("{taken:x}\r\n").as_bytes(), part, b"\r\n"]);
            }
            Body::Length(_) | Body::Chunks(_) => self.out.extend_from_slice(part),
        }
        Ok(taken == bytes.len())
    }

    /// Writes what is to go to the client.
    async fn write<S: ClientSocket>(&mut self, stream: &mut ClientStream<S>) -> Result<(), Broken> {
        if !self.out.is_empty() {
            write(stream, &self.out).await?;
            self.out.clear();
        }
        Ok(())
    }
}

/// How many of `bytes` belong to `body`.
fn taken(body: &mut Body, bytes: &[u8], record: &mut Record) -> Result<usize, Broken> {
    let taken = body.take(bytes).inspect_err(|_bad| record.cut()).map_err(|_bad| Broken)?;
    record.add_bytes(taken);
    Ok(taken)
}

async fn write<S: ClientSocket>(stream: &mut ClientStream<S>, bytes: &[u8]) -> Result<(), Broken> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    written.await.map_err(|_left: io::Error| Broken)
}
