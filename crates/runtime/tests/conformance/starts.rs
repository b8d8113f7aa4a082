//! What an app has when it starts.

use berth_runtime::{Identity, InstanceSpec, PORTS, PortWish, RuntimeError, Step, User};
use berth_spec::{Command, Isolation};

use super::Bench;
use crate::world::is_running;

pub(super) async fn an_app_runs(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    let observed = bench.until(&spec.id, is_running).await;
    assert_eq!((observed.id, observed.token, observed.restarts), (spec.id.clone(), spec.token, 0));
    assert!(started.shim.as_ref().is_some_and(|shim: &Identity| shim.is_alive().unwrap()));
    bench.end(&spec.id).await;
}

pub(super) async fn arguments_arrive_as_they_are(bench: Bench) {
    let arguments = ["two words", "", "'\"$HOME`\\", "a\nb", "ünï", "-n", "*"];
    let script = r#"for it in "$@"; do printf '[%s]' "$it"; done; echo"#;
    let argv = ["/bin/sh", "-c", script, "sh"].into_iter().chain(arguments).map(str::to_owned).collect();
    let (_, said) = bench.run(&InstanceSpec { command: Command::Argv(argv), ..bench.shell("") }).await;
    let expected: String = arguments.iter().map(|it| format!("[{it}]")).collect();
    assert_eq!(said.join("\n"), expected);
}

pub(super) async fn variables_arrive_as_they_are(bench: Bench) {
    let mut spec = bench.shell(r#"printf '%s|%s|%s\n' "$WORDS" "$EMPTY" "$LINES_OF""#);
    for (name, value) in [("WORDS", "a=b 'c' $HOME"), ("EMPTY", ""), ("LINES_OF", "1\n2")] {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(bench.run(&spec).await.1, ["a=b 'c' $HOME||1", "2"]);
}

pub(super) async fn nothing_of_our_environment_is_handed_on(bench: Bench) {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "a test has an environment to hand on");
    let mut names = bench.said("env | sed 's/=.*//'").await;
    names.sort_unstable();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
    assert_eq!(names, ["BERTH_TEST_ROLE", "BERTH_TOKEN", "HOME", "PATH", "PORT", "TMPDIR"]);
}

pub(super) async fn the_port_is_told(bench: Bench) {
    let spec = bench.service("echo port $PORT; exec sleep 1000");
    let started = bench.start(&spec, "port").await;
    assert_eq!(bench.line(&spec.id, "port").await, format!("port {}", started.port.unwrap()));
    bench.end(&spec.id).await;
}

pub(super) async fn a_command_is_expanded_from_all_it_gets(bench: Bench) {
    let command = Command::parse("echo port $PORT home $HOME none $BERTH_TEST_NONE end").unwrap();
    let spec = InstanceSpec { command, port: PortWish::Exactly(29_111), ..bench.shell("") };
    let (_, said) = bench.run(&spec).await;
    let own_root = bench.runtime().capabilities().isolation >= Isolation::Namespaces;
    let home = if own_root { "/tmp".into() } else { bench.world.folder(&spec.id).join("tmp") };
    assert_eq!(said, [format!("port 29111 home {} none end", home.display())]);
}

pub(super) async fn it_works_in_its_directory(bench: Bench) {
    let spec = InstanceSpec { dir: "/usr/share".into(), ..bench.shell("pwd -P") };
    assert_eq!(bench.run(&spec).await.1, ["/usr/share"]);
}

pub(super) async fn home_and_tmpdir_can_be_written_to(bench: Bench) {
    let said = bench.said(r#"echo x > "$TMPDIR/file" && cat "$HOME/file" && test "$HOME" = "$TMPDIR" && echo same"#).await;
    assert_eq!(said, ["x", "same"]);
}

pub(super) async fn it_runs_as_its_user(bench: Bench) {
    let spec = bench.shell("grep -E '^(Uid|Gid|Groups):' /proc/self/status | tr -s '\\t ' ' '");
    let user = spec.user.clone().unwrap();
    let four = [user.uid.to_string(), user.uid.to_string(), user.uid.to_string(), user.uid.to_string()].join(" ");
    let said = bench.run(&spec).await.1;
    assert_eq!(said[..2], [format!("Uid: {four}"), format!("Gid: {four}")]);
    assert_eq!(said[2].trim(), "Groups:");
}

pub(super) async fn it_can_gain_no_privileges(bench: Bench) {
    assert_eq!(bench.said("grep NoNewPrivs /proc/self/status | tr -d '\\t '").await, ["NoNewPrivs:1"]);
}

pub(super) async fn it_has_no_capabilities(bench: Bench) {
    let said = bench.said("grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status | tr -s '\\t ' ' '").await;
    assert_eq!(said.len(), 4);
    assert!(said.iter().all(|line| line.ends_with(" 0000000000000000")), "{said:?}");
}

pub(super) async fn it_has_three_descriptors(bench: Bench) {
    // That of the folder is the one that lists it.
    assert_eq!(bench.said("ls /proc/self/fd | tr '\\n' ' '").await, ["0 1 2 3 "]);
}

pub(super) async fn there_is_nothing_to_read(bench: Bench) {
    assert_eq!(bench.said("cat; echo end").await, ["end"]);
}

pub(super) async fn open_files_are_limited(bench: Bench) {
    assert_eq!(bench.said("ulimit -n").await, ["256"]);
}

pub(super) async fn no_core_is_written(bench: Bench) {
    assert_eq!(bench.said("ulimit -c").await, ["0"]);
    let exit = bench.run(&bench.shell("kill -QUIT $$")).await.0;
    assert_eq!((exit.signal, exit.core), (Some(3), false));
}

pub(super) async fn a_start_repeated_is_the_same_start(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let runtime = bench.runtime();
    let (first, second) = tokio::join!(runtime.start(spec.clone()), runtime.start(spec.clone()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.shim, first.port), (second.shim, second.port));
    bench.end(&spec.id).await;
}

pub(super) async fn an_id_in_use_is_not_taken(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    bench.start(&spec, "ready").await;
    let other = InstanceSpec { token: bench.shell("").token, ..spec.clone() };
    assert!(matches!(bench.runtime().start(other).await, Err(RuntimeError::Occupied(_))));
    bench.end(&spec.id).await;
}

pub(super) async fn a_missing_program_is_told(bench: Bench) {
    let command = Command::Argv(vec!["no-such-program".to_owned()]);
    let exit = bench.run(&InstanceSpec { command, ..bench.shell("") }).await.0;
    assert_eq!((exit.code, exit.failure.unwrap().step), (Some(127), Step::Exec));
}

pub(super) async fn a_missing_directory_is_told(bench: Bench) {
    let dir = "/usr/share/no/such/folder".into();
    let exit = bench.run(&InstanceSpec { dir, ..bench.shell("true") }).await.0;
    assert_eq!((exit.code, exit.failure.unwrap().step), (Some(127), Step::Dir));
}

pub(super) async fn nonsense_is_refused_and_leaves_nothing(bench: Bench) {
    let good = bench.shell("true");
    let root = User { uid: 0, gid: 0, groups: vec![] };
    for bad in [
        InstanceSpec { command: Command::Argv(vec![]), ..good.clone() },
        InstanceSpec { command: Command::Argv(vec!["a\0".to_owned()]), ..good.clone() },
        InstanceSpec { dir: "x".into(), ..good.clone() },
        InstanceSpec { user: Some(root), ..good.clone() },
    ] {
        assert!(matches!(bench.runtime().start(bad).await, Err(RuntimeError::Invalid(_))));
    }
    let port = PortWish::Any { exclude: PORTS.collect() };
    let none = bench.runtime().start(InstanceSpec { port, ..good.clone() }).await;
    assert!(matches!(none, Err(RuntimeError::NoPort)));
    assert!(!bench.world.folder(&good.id).try_exists().unwrap());
    assert_eq!(bench.runtime().list(), []);
}
