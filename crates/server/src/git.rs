//! Git remotes: each app has a repository that is cloned from and pushed to over HTTP; a push to the deploy branch is a deployment.
//!
//! The protocol is spoken by the `git` program, which parses what strangers send: never as root, on the app's own repository, with
//! a configuration that is ours alone (`repository`). `http` hands it requests and passes on what it answers. Before git moves a
//! branch it asks us through its hook `pre-receive`, which is this program under another name; the answer is the deployment itself
//! (`push`): when it fails the branch stays where it was. Nothing is kept beside the journal and the repository.

mod address;
mod body;
pub mod bundle;
mod commit;
pub(crate) mod http;
mod pass;
mod push;
mod release;
mod repository;
mod service;
mod signature;
mod teller;
pub(crate) mod webhook;

use berth_contract::{Code, Problem};
use berth_control::route::DEFAULT_NAME;
use berth_control::state::App;
use berth_spec::{AppId, BranchName};

pub(crate) use pass::{FOR_MS as PASS_FOR_MS, Pass};
pub(crate) use repository::Repositories;
pub(crate) use webhook::{path as hook_path, secret_text as hook_secret, token_bound};

use crate::api::Refused;

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

/// The branches that are deployed when nobody says which.
const DEPLOY_BRANCHES: [&str; 2] = ["main", "master"];
/// The longest address of a repository elsewhere, in bytes.
const URL_MAX: usize = 1_000;

/// The branches of `app` whose pushes are deployed.
pub(crate) fn deploy_branches(app: &App) -> Vec<&str> {
    app.git.branch.as_ref().map_or_else(|| DEPLOY_BRANCHES.to_vec(), |branch| vec![branch.as_str()])
}

/// What a clone of the app's repository checks out, when the repository is made.
fn default_branch(app: &App) -> &str {
    app.git.branch.as_ref().map_or(DEPLOY_BRANCHES[0], BranchName::as_str)
}

/// An app's id as addresses have it: its name alone, where that says it all.
pub(crate) fn short(app: &AppId) -> String {
    let is_default = [app.tenant.as_str(), app.project.as_str()] == [DEFAULT_NAME; 2];
    if is_default { app.app.to_string() } else { app.to_string() }
}

/// Checks the address of a repository elsewhere: of the web, without credentials in it, of plain characters.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(url: &str, allow_http: bool) -> Result<(), Refused> {
    let wrong = |detail: &str, next: &str| {
        let shown: String = url.chars().take(200).collect();
        Err(Problem::new(Code::RequestInvalid, format!("{shown:?} {detail}")).next(next).into())
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:%+[]".contains(&byte);
    if url.len() > URL_MAX || !url.bytes().all(|byte| plain(byte) || byte == b'@') {
        return wrong("is no plain address", "give it as the forge shows it for cloning over https");
    }
    let rest = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => rest,
        (None, Some(rest)) if allow_http => rest,
        (None, Some(_)) => {
            return wrong("is not encrypted", "use https, or take the risk with `--allow-http`");
        }
        (None, None) => return wrong("does not begin with https://", "other ways to clone are not taken"),
    };
    if rest.contains('@') {
        return wrong(
            "holds a user or a password",
            "give them apart: `berth git connect URL --token` reads them",
        );
    }
    match rest.split_once('/') {
        Some((host, path)) if !host.is_empty() && !host.starts_with(['-', '.', ':']) && !path.is_empty() => {
            Ok(())
        }
        _ => wrong("names no repository", "give it as the forge shows it for cloning over https"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_of_the_web_are_cloned() {
        for good in
            ["https://github.com/acme/shop.git", "https://git.example.com:8443/a/b", "https://[::1]:3000/a"]
        {
            assert!(check_url(good, false).is_ok(), "{good}");
        }
        assert!(check_url("http://127.0.0.1:3000/a.git", true).is_ok());
        for bad in [
            "",
            "github.com/acme/shop",
            "http://git.example.com/a",
            "git://git.example.com/a",
            "ssh://git@git.example.com/a",
            "git@github.com:acme/shop.git",
            "file:///etc/passwd",
            "/etc/passwd",
            "ext::sh -c touch",
            "--upload-pack=touch x",
            "https://",
            "https:///a",
            "https://git.example.com",
            "https://git.example.com/",
            "https://-oProxyCommand=x/a",
            "https://user:pass@git.example.com/a",
            "https://git.example.com/a b",
            "https://git.example.com/a\nb",
            "https://git.example.com/$(x)",
            "https://git.example.com/a#b",
            "https://git.example.com/a?b",
            &format!("https://git.example.com/{}", "a".repeat(1_000)),
        ] {
            assert!(check_url(bad, false).is_err(), "{bad}");
        }
    }
}
