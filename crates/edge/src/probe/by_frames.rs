//! Asks an instance that speaks HTTP/2.

use std::cell::RefCell;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use berth_routing::health::Answer;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{NOT_A_PATH, PROBER, in_words, responded};
use crate::grpc;

/// Where gRPC's own protocol of health is asked, as Kubernetes does it (grpc.health.v1). Such a check is a call and no page.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";
/// A message of no bytes, which asks about the server as a whole.
const WHOLE_SERVER: &[u8] = &[0, 0, 0, 0, 0];
/// A message of two bytes: the field `status` is SERVING.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// More than any answer about health.
const ANSWER_MAX: usize = 4 << 10;
/// How long the end of a connection is waited for, so that the instance does not see it break.
const GOODBYE: Duration = Duration::from_millis(100);

/// What a connection does besides; it ends with the question.
type Tasks = RefCell<JoinSet<()>>;

/// Runs it here. It does not own what it runs, which owns it.
#[derive(Clone)]
struct Here(Weak<Tasks>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Here {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.borrow_mut().spawn_local(task);
        }
    }
}

pub(super) async fn ask(socket: TcpStream, path: &str, host: &str) -> Answer {
    let Some(request) = request(path, host) else { return Answer::Silent(NOT_A_PATH.to_owned()) };
    let tasks = Rc::new(Tasks::default());
    let executor = Here(Rc::downgrade(&tasks));
    let (mut sender, connection) = match http2::handshake(executor, TokioIo::new(socket)).await {
        Ok(both) => both,
        Err(error) => return Answer::Silent(in_short(&error)),
    };
    tasks.borrow_mut().spawn_local(async move { drop(connection.await) });
    let answer = match sender.send_request(request).await {
        Ok(response) if path == GRPC_HEALTH => health(response).await,
        Ok(response) => responded(&response),
        Err(error) => Answer::Silent(in_short(&error)),
    };
    drop(sender);
    let mut ending = std::mem::take(&mut *tasks.borrow_mut());
    // What does not end by itself is ended.
    let _in_time = tokio::time::timeout(GOODBYE, async { while ending.join_next().await.is_some() {} }).await;
    answer
}

fn request(path: &str, host: &str) -> Option<Request<Full<Bytes>>> {
    let request = Request::builder()
        .uri(format!("http://{host}{path}"))
        .version(Version::HTTP_2)
        .header(USER_AGENT, PROBER);
    if path == GRPC_HEALTH {
        let call =
            request.method(Method::POST).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        return call.body(Full::from(WHOLE_SERVER)).ok();
    }
    request.body(Full::default()).ok()
}

/// What a call about health says, as the status of HTTP that stands for it.
async fn health(response: Response<Incoming>) -> Answer {
    let status = response.status();
    let (head, body) = response.into_parts();
    let Ok(body) = Limited::new(body, ANSWER_MAX).collect().await else {
        return Answer::Silent("its answer about health broke off or is none".to_owned());
    };
    let said = body.trailers().and_then(grpc::outcome).or_else(|| grpc::outcome(&head.headers));
    let serves = body.to_bytes() == SERVING;
    let status = match said {
        None if !status.is_success() => status.as_u16(),
        None => return Answer::Silent("it is no server of gRPC".to_owned()),
        Some(200) if !serves => 503,
        Some(said) => said,
    };
    Answer::Responded { status, location: None }
}

fn in_short(error: &hyper::Error) -> String {
    let Some(cause) = error.source() else { return error.to_string() };
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return match error.get_io() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                "it closed the connection without an answer".to_owned()
            }
            Some(error) => in_words(error),
            None if error.is_remote() => format!("it ended the stream: {error}"),
            None => format!("the answer is not HTTP/2: {error}"),
        };
    }
    cause.to_string()
}
