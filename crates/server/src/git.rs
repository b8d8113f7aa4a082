//! Git remotes: each app has a repository that is cloned from and pushed to over HTTP; a push to the deploy branch is a deployment.
//!
//! The protocol is spoken by the `git` program, which parses what strangers send: never as root, on the app's own repository, with
//! a configuration that is ours alone ([`repository`]). [`http`] hands it requests and passes on what it answers. Before git moves a
//! branch it asks us through its hook `pre-receive`, which is this program under another name; the answer is the deployment itself
//! ([`push`]): when it fails the branch stays where it was. Nothing is kept beside the journal and the repository.

mod address;
mod body;
mod commit;
pub(crate) mod http;
mod push;
mod repository;
mod service;
mod teller;

pub(crate) use repository::Repositories;

/// How the hook of a repository reaches control: the number of an open socket, in this variable.
///
/// The hook writes its quarantine, a newline and what git told it, to the end; it reads frames, each a byte that says what it is, four of
/// length, most significant first, and so many bytes.
pub const HOOK_SOCKET: &str = "BERTH_PUSH_SOCKET";
/// A frame of text to be shown to whoever pushes.
pub const FRAME_TEXT: u8 = b'T';
/// The last frame: a byte, nought when the push is taken.
pub const FRAME_END: u8 = b'E';
/// The name of the hook, by which the program knows that it is one.
pub const HOOK: &str = "pre-receive";
