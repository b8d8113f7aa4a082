//! Variables in and out: files, single values, lines for a shell, and what is different between releases.

use super::*;

const CHANGED: &str = r#"{"config":{},"release":null}"#;

#[test]
fn a_file_of_variables_is_set() {
    let patch = format!("PATCH {APP}/config");
    let secrets = format!("PATCH {APP}/secrets");
    let platform =
        Platform::run(&[(&patch, 200, CHANGED), (&secrets, 200, r#"{"secrets":{},"release":null}"#)]);
    let file = platform.directory.path().join(".env");
    std::fs::write(&file, "# mine\nexport A='b c'\nPORT=1\nAPI_KEY=k\n").unwrap();
    let (status, _, err) = platform.berth("config import .env --app shop", "");
    assert_eq!(status, ExitStatus::Ok, "{err}");
    assert_eq!(platform.body(&patch), r#"{"set":{"A":"b c","API_KEY":"k"},"unset":[]}"#);
    assert!(
        err.contains("PORT is left out") && err.contains("warning: API_KEY looks like a secret"),
        "{err}"
    );
    let (status, _, err) = platform.berth("secrets:import - --app shop", "T=1\nU=\"2\n3\"\n");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, ""));
    assert_eq!(platform.body(&secrets), r#"{"set":{"T":"1","U":"2\n3"},"unset":[]}"#);
    std::fs::write(&file, "A=1\nhunter2\n").unwrap();
    let (status, _, err) = platform.berth("secrets import .env --app shop", "");
    assert_eq!(status, ExitStatus::Refused);
    assert!(err.starts_with("error: .env is not valid\n  .env:2:1: not of the form NAME=VALUE\n"), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
    for (line, input) in
        [("config import none --app shop", ""), ("config import - --app shop", "# nothing\n")]
    {
        assert_ne!(platform.berth(line, input).0, ExitStatus::Ok, "{line}");
    }
}

#[test]
fn a_value_comes_out_as_it_is_and_a_secret_never() {
    let platform = Platform::run(&[
        (&format!("GET {APP}/config"), 200, r#"{"config":{"A":"b c","B":"it's"},"release":1}"#),
        (&format!("GET {APP}/secrets"), 200, r#"{"secrets":{"TOKEN":2},"release":1}"#),
    ]);
    assert_eq!(platform.berth("config get A --app shop", "").1, "b c\n");
    assert_eq!(
        platform.berth("config:get A --app shop --json", "").1,
        "{\"name\":\"A\",\"value\":\"b c\"}\n"
    );
    assert_eq!(platform.berth("config list --shell --app shop", "").1, "A='b c'\nB='it'\\''s'\n");
    for (name, told) in
        [("TOKEN", "TOKEN is a secret of shop"), ("NONE", "the configuration of shop has no NONE")]
    {
        let (status, out, err) = platform.berth(&format!("config get {name} --app shop"), "");
        assert_eq!((status, out.as_str()), (ExitStatus::NotFound, ""));
        assert!(err.contains(told), "{err}");
    }
}

#[test]
fn what_is_different_is_told() {
    let diff = r#"{"since":2,"number":4,"source":[{"name":"commit","before":"aaa","after":"bbb"}],
        "processes":[{"name":"worker","before":null,"after":"bin/worker"}],"manifest":[],
        "config":[{"name":"LOG","before":"info","after":null}],
        "secrets":[{"name":"TOKEN","before":"1","after":"2"}]}"#;
    let platform = Platform::run(&[
        (&format!("GET {APP}/releases"), 200, &releases()),
        (&format!("GET {APP}/releases/4/diff?since=2"), 200, diff),
    ]);
    let all = "from v2 to v4\nsource\n  - commit = aaa\n  + commit = bbb\nprocesses\n  + worker = bin/worker\n\
               config\n  - LOG = info\nsecrets\n  - TOKEN = version 1\n  + TOKEN = version 2\n";
    for line in ["releases diff", "releases:diff v2", "releases diff v2 v4"] {
        let (status, out, err) = platform.berth(&format!("{line} --app shop"), "");
        assert_eq!((status, out.as_str(), err.as_str()), (ExitStatus::Ok, all, ""), "{line}");
    }
    let (_, out, _) = platform.berth("config diff v2 v4 --app shop", "");
    assert!(out.starts_with("from v2 to v4\nconfig\n") && !out.contains("commit"), "{out}");
    let (_, out, _) = platform.berth("releases diff v2 v4 --app shop --json", "");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["config"][0]["name"], "LOG");
}

#[test]
fn apps_are_found_and_ordered() {
    let all = |names: &[(&str, &str, &str)]| {
        let apps: Vec<String> =
            names.iter().map(|(name, state, release)| app(state, release).replace("shop", name)).collect();
        apps.join(",")
    };
    let apps = APP.replace("/shop", "");
    let one = format!(r#"{{"apps":[{}],"next":"b"}}"#, all(&[("a", "running", "1"), ("b", "down", "9")]));
    let two = format!(r#"{{"apps":[{}]}}"#, all(&[("c", "degraded", "3")]));
    let platform = Platform::run(&[
        (&format!("GET {apps}"), 200, &one),
        (&format!("GET {apps}?after=b"), 200, &two),
        (&format!("GET {apps}?q=c"), 200, &two),
    ]);
    let names = |line: &str| -> Vec<String> {
        let (status, out, _) = platform.berth(&format!("{line} --json"), "");
        assert_eq!(status, ExitStatus::Ok);
        let list: serde_json::Value = serde_json::from_str(&out).unwrap();
        list["apps"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("apps"), ["a", "b", "c"]);
    assert_eq!(names("apps --sort state"), ["b", "c", "a"]);
    assert_eq!(names("apps --sort release -n 2"), ["b", "c"]);
    assert_eq!(names("apps --state degraded"), ["c"]);
    assert_eq!(names("apps c"), ["c"]);
    platform.seen.lock().unwrap().clear();
    let (_, out, err) = platform.berth("apps -n 1", "");
    assert_eq!((out.lines().count(), err.as_str()), (2, "and 1 more app\n"));
    assert_eq!(platform.seen().len(), 1, "the second page is not asked for");
}
