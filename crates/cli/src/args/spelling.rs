//! Other ways to write a verb: `config:set`, and what Heroku, Fly, Dokku and Kamal call it.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What people type who come from elsewhere, and what it is here. A name with a colon also stands for its parts.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["create", "apps:create", "init"],
        "`berth launch` makes an app of what is in a directory, and the first `berth deploy` does, too",
    ),
    (&["apps:list", "list", "ls"], "`berth apps` lists the apps"),
    (&["apps:destroy", "delete", "remove", "rm"], "`berth destroy --app NAME` removes an app"),
    (&["push", "redeploy", "ship"], "`berth deploy` builds and starts the source in a directory"),
    (&["ps:scale", "dyno:scale", "formation"], "`berth scale web=2` sets how many instances run"),
    (&["ps:stop", "stop"], "`berth scale web=0` stops an app's process, `berth down` the platform"),
    (
        &["ps:restart", "restart"],
        "a process that ends is started again by itself; `berth deploy` starts new instances",
    ),
    (&["ps:exec", "ssh", "console", "shell", "enter"], "`berth exec -- sh` is a shell in a running instance"),
    (&["ps:report", "dyno", "machine", "details"], "`berth ps` lists the instances"),
    (&["maintenance:enable", "lock"], "`berth maintenance on` turns requests away with a page that says so"),
    (&["maintenance:disable", "unlock"], "`berth maintenance off` lets requests through again"),
    (&["start"], "`berth up` starts the platform, `berth scale web=1` an app's process"),
    (&["logs:tail", "tail", "log"], "`berth logs -f` follows what an app writes"),
    (&["releases:rollback"], "`berth rollback` goes back, `berth releases` lists where to"),
    (&["releases:info"], "`berth releases v42` shows a release"),
    (&["config:add", "env", "set", "vars"], "`berth config set NAME=VALUE` sets a variable"),
    (&["config:remove", "unset"], "`berth config unset NAME` removes a variable"),
    (&["config:show", "config:edit"], "`berth config` lists the variables"),
    (&["secret", "secrets:add"], "`berth secrets set NAME` reads a secret from standard input"),
    (&["activity", "audit", "events"], "`berth timeline` shows what happened, and who did it"),
    (&["open", "apps:open", "url"], "`berth apps` shows where each app answers"),
    (&["info", "apps:info", "show"], "`berth why` says how an app is, `berth releases` what made it so"),
    (
        &["login", "auth", "whoami"],
        "nobody logs in: a platform's own machine needs no token, others take BERTH_API and BERTH_TOKEN",
    ),
    (
        &["storage", "storage:list", "volume", "storage:mount", "volumes:create"],
        "`berth volumes` lists the volumes; write [[volumes]] into berth.toml to have one",
    ),
    (
        &["snapshots", "snapshot", "volumes:fork"],
        "`berth volumes snapshot NAME` takes a snapshot of a volume",
    ),
    (&["compose", "compose:up"], "`berth stack up` runs the services of a compose file as apps"),
    (&["volumes:destroy", "volumes:delete"], "`berth volumes remove NAME` removes a volume"),
    (&["buildpacks", "builds"], "Berth finds out how to build; `berth deploy --dry-run` shows what it found"),
];

/// Takes `config:set` for `config set`, as Heroku and Dokku write it: for every verb that has actions.
pub(super) fn split_colons(
    arguments: impl IntoIterator<Item = OsString>,
    definition: &clap::Command,
) -> Vec<OsString> {
    let mut split = Vec::new();
    let mut may_split = true;
    for argument in arguments {
        let parts = argument.to_str().and_then(|text| text.split_once(':'));
        match parts {
            Some((noun, action)) if may_split && has_action(definition, noun, action) => {
                may_split = false;
                split.extend([noun.into(), action.into()]);
            }
            _ => split.push(argument),
        }
    }
    split
}

/// Refuses a text to look for which elsewhere is an action on apps: `berth apps create` would look for an app called so.
pub(super) fn app_text(text: &str) -> Result<String, String> {
    let action = format!("apps:{text}");
    match ELSEWHERE.iter().find(|(names, _)| names.contains(&action.as_str())) {
        Some((_, instead)) => Err((*instead).to_owned()),
        None => Ok(text.to_owned()),
    }
}

fn has_action(definition: &clap::Command, noun: &str, action: &str) -> bool {
    definition.find_subcommand(noun).is_some_and(|noun| noun.find_subcommand(action).is_some())
}

/// The verb that is not there, and what to type instead.
pub(super) fn meant(problem: &clap::Error) -> Option<(String, &'static str)> {
    let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(typed))) =
        (problem.kind(), problem.get(ContextKind::InvalidSubcommand))
    else {
        return None;
    };
    let found = ELSEWHERE.iter().find(|(names, _)| names.contains(&typed.as_str()));
    found.map(|(_, instead)| (typed.clone(), *instead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{definition, read};

    #[test]
    fn what_is_called_otherwise_elsewhere_is_told() {
        let told = |line: &str| meant(&read(line.split(' ').map(OsString::from)).unwrap_err());
        let (verb, instead) = told("berth --json ps:scale web=2").unwrap();
        assert_eq!((verb.as_str(), instead), ("ps:scale", "`berth scale web=2` sets how many instances run"));
        assert_eq!(told("berth depoly"), None);
        assert_eq!(told("berth scale web"), None);
        let told = read("berth apps create".split(' ').map(OsString::from)).unwrap_err().to_string();
        assert!(told.contains("`berth launch` makes an app of what is in a directory, and the first `berth deploy` does, too"), "{told}");
    }

    /// A hint that leads to a verb which is not there, or hides one which is, would be worse than none.
    #[test]
    fn every_hint_leads_somewhere() {
        let definition = definition();
        for (names, instead) in ELSEWHERE {
            for name in *names {
                assert!(definition.find_subcommand(name).is_none(), "{name} is a verb");
                let (noun, action) = name.split_once(':').unwrap_or((name, ""));
                assert!(!has_action(&definition, noun, action), "{name} is an action");
            }
            for line in instead.split('`').skip(1).step_by(2) {
                let verb = line.split(' ').nth(1).unwrap();
                assert!(definition.find_subcommand(verb).is_some(), "{line}");
            }
        }
    }
}
