//! What every backend does, each behaviour by its name: one suite, which runs against any [`Runtime`] that a test program opens.
//!
//! A test program brings `open`, which opens its backend, and `NAME`; the table at the end of this file makes a test of each behaviour.
//! What a backend cannot do is said in one place, [`Need::lacking`]: there a behaviour is not tried, its lack is printed, and the sentence
//! that says so must stand in docs/isolation.md; where the backend refuses, it has to refuse.

use berth_runtime::{
    Capabilities, Cursor, Exit, Frozen, InstanceSpec, Observed, PlainRuntime, Restart, Root, Runtime,
    RuntimeError, Stop, Stream,
};
use berth_spec::{Command, InstanceId, Isolation};

use crate::world::{LONG, World, line_with, records};

/// A backend, and a world for its instances.
pub(crate) struct Bench {
    pub(crate) world: World,
    /// `None` only between two controls.
    runtime: Option<PlainRuntime>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let runtime = Some(crate::open(world.layout()));
        Self { world, runtime }
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        self.runtime.as_ref().expect("a bench has a runtime but while it is opened anew")
    }

    /// Control dies, and another one comes.
    pub(crate) fn reopen(&mut self) {
        self.runtime = None;
        self.runtime = Some(crate::open(self.world.layout()));
    }

    /// Ends everything, as a supervisor does that goes down without a control.
    pub(crate) fn end_all(&self) -> Result<(), RuntimeError> {
        crate::open(self.world.layout()).end_all()
    }

    /// An instance that runs a script, and is not started again.
    pub(crate) fn shell(&self, script: &str) -> InstanceSpec {
        let command = Command::Argv(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        InstanceSpec { command, restart: Restart::Never, ..self.world.spec("none") }
    }

    /// The same, started again whenever it ends.
    pub(crate) fn service(&self, script: &str) -> InstanceSpec {
        InstanceSpec { restart: Restart::Always, ..self.shell(script) }
    }

    /// Starts it, and waits until it has said `word`.
    pub(crate) async fn start(&self, spec: &InstanceSpec, word: &str) -> Observed {
        let started = self.runtime().start(spec.clone()).await.unwrap();
        self.line(&spec.id, word).await;
        started
    }

    pub(crate) async fn line(&self, id: &InstanceId, word: &str) -> String {
        line_with(self.runtime(), id, word).await
    }

    /// Runs it to its end: its exit, and what it wrote to its output.
    pub(crate) async fn run(&self, spec: &InstanceSpec) -> (Exit, Vec<String>) {
        let finished = self.runtime().run_once(spec.clone(), Some(LONG)).await.unwrap();
        assert!(!finished.timed_out, "{:?}", finished.tail);
        (finished.exit.unwrap(), self.lines(&spec.id, Stream::Out))
    }

    /// What a script wrote to its output; it has to end well.
    pub(crate) async fn said(&self, script: &str) -> Vec<String> {
        let (exit, lines) = self.run(&self.shell(script)).await;
        assert_eq!(exit.code, Some(0), "{exit:?} {lines:?}");
        lines
    }

    /// The lines of a log that were written to one of its streams.
    pub(crate) fn lines(&self, id: &InstanceId, stream: Stream) -> Vec<String> {
        let records = records(self.runtime(), id).into_iter().filter(|record| record.stream == stream);
        records.map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect()
    }

    pub(crate) async fn until(&self, id: &InstanceId, wanted: impl Fn(&Observed) -> bool) -> Observed {
        crate::world::until(self.runtime(), id, wanted).await
    }

    /// Stops it and has nothing of it left but its log.
    pub(crate) async fn end(&self, id: &InstanceId) -> Observed {
        let ended = self.runtime().stop(id, Stop { signal: 15, ..crate::world::stop_within(100) }).await;
        self.runtime().remove(id).await.unwrap();
        ended.unwrap()
    }
}

/// What a behaviour takes that not every backend has on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A root, processes and a host name of its own.
    Namespaces,
    /// A `/tmp` that is new whenever the app is started.
    NewTmp,
    /// Room that is counted.
    Room,
    /// A limit, by the kernel's name for it.
    Limit(&'static str),
    /// A user of its own.
    User,
    /// A network of its own.
    Network,
    /// Names of other apps.
    Names,
    /// That it can be made to stand still.
    Freezer,
    /// The layers of an image as its root.
    Images,
    /// Users of an image that are none of the machine's.
    ImageUsers,
    /// That what runs beside an app may signal it.
    Signals,
}

impl Need {
    /// The sentence of docs/isolation.md that says that this is not to be had from such a backend; `None` when it is.
    fn lacking(self, capabilities: &Capabilities) -> Option<&'static str> {
        let namespaces = capabilities.isolation >= Isolation::Namespaces;
        let docker = capabilities.backend == "docker";
        let (has, sentence) = match self {
            Self::Namespaces => (
                namespaces,
                "Below `namespaces` an app sees the files, the processes and the host name of its machine.",
            ),
            Self::NewTmp => (
                namespaces && !docker,
                "Below `namespaces`, and with Docker, what an app wrote to its `TMPDIR` is there until its instance is cleared away.",
            ),
            Self::Room => {
                (namespaces, "Below `namespaces` nothing limits how much an app writes to its `TMPDIR`.")
            }
            Self::Limit(name) => (
                capabilities.limits.contains(&name),
                "Where the machine's control groups limit something for nobody, it is not limited, and `berth status` says so.",
            ),
            Self::User => (capabilities.users, "For an ordinary user every app runs as that user."),
            Self::Network => (
                capabilities.own_network,
                "Where instances can have no network of their own they share the machine's.",
            ),
            Self::Names => (
                capabilities.names,
                "Below `namespaces`, with Docker for an ordinary user, and where the kernel has no pairs of interfaces (veth), apps have no names for each other.",
            ),
            Self::Freezer => (
                capabilities.freezes,
                "Without control groups of its own an instance cannot be frozen; asking for it is refused.",
            ),
            Self::Images => (namespaces, "Below `namespaces` an image is refused."),
            Self::Signals => (
                namespaces || capabilities.isolation == Isolation::Plain,
                "At `confined` a command in an instance can signal nobody but what it has started itself, from Linux 6.12 on.",
            ),
            Self::ImageUsers => (
                namespaces && !docker,
                "With Docker the users of an image are the machine's users of the same numbers, as Docker has it.",
            ),
        };
        (!has).then_some(sentence)
    }
}

/// Tries one behaviour, unless the backend lacks what it takes.
async fn hold(name: &str, needs: &[Need], behaviour: impl AsyncFnOnce(Bench)) {
    if let Some(why) = crate::absent() {
        return say(&format!("!! NOT TESTED: {}: {name}: {why}", crate::NAME));
    }
    let bench = Bench::new();
    let capabilities = bench.runtime().capabilities();
    let Some((need, sentence)) = lack(needs, &capabilities) else {
        return behaviour(bench).await;
    };
    say(&format!("{}: {name} is not to be had here: {sentence}", crate::NAME));
    refused(&bench, need).await;
}

fn lack(needs: &[Need], capabilities: &Capabilities) -> Option<(Need, &'static str)> {
    needs.iter().find_map(|need| Some((*need, need.lacking(capabilities)?)))
}

/// What is not to be had and can be asked for is refused.
async fn refused(bench: &Bench, need: Need) {
    match need {
        Need::Images => {
            let root = Root::Layers { lower: vec!["/nowhere".into()], uid_base: 2_000_000_000 };
            let spec = InstanceSpec { root, ..bench.shell("true") };
            let refused = bench.runtime().start(spec).await;
            assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
        }
        Need::Freezer => {
            let spec = bench.service("echo ready; exec sleep 1000");
            bench.start(&spec, "ready").await;
            let refused = bench.runtime().freeze(&spec.id, Frozen::Resident).await;
            assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
            bench.end(&spec.id).await;
        }
        Need::Network => {
            let spec = InstanceSpec { network: berth_runtime::Network::Own, ..bench.shell("true") };
            let refused = bench.runtime().start(spec).await;
            assert!(matches!(refused, Err(RuntimeError::Invalid(_))), "{refused:?}");
        }
        _ => {}
    }
}

#[expect(clippy::print_stderr, reason = "what is not tested must not look as if it had been")]
pub(crate) fn say(what: &str) {
    eprintln!("{what}");
}

/// Every lack that is counted on has its sentence in the documentation, and there are as many behaviours as are promised.
#[tokio::test]
async fn the_suite_is_whole_and_what_is_lacking_is_documented() {
    if let Some(why) = crate::absent() {
        return say(&format!("!! NOT TESTED: {}: all {} behaviours: {why}", crate::NAME, BEHAVIOURS.len()));
    }
    let capabilities = Bench::new().runtime().capabilities();
    let documented = include_str!("../../../../docs/isolation.md");
    let lacking: Vec<_> =
        BEHAVIOURS.iter().filter_map(|(name, needs)| Some((name, lack(needs, &capabilities)?.1))).collect();
    for (name, sentence) in &lacking {
        assert!(
            documented.contains(sentence),
            "{name} is not to be had, and docs/isolation.md does not say: {sentence}"
        );
    }
    let (all, backend) = (BEHAVIOURS.len(), crate::NAME);
    say(&format!(
        "{backend}: {} of {all} behaviours hold, {} are not to be had",
        all - lacking.len(),
        lacking.len()
    ));
    assert!(all >= 120);
}

/// All that comes from an end until it is over.
pub(crate) async fn all(end: &berth_runtime::End) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match end.read(&mut buffer).await.unwrap() {
            0 => return all,
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The place in a log where it ends now.
pub(crate) fn end_of_log(bench: &Bench, id: &InstanceId) -> Cursor {
    bench.runtime().log(id).tail(1).unwrap().next
}

/// Makes the modules of behaviours, their list, and a test of each.
macro_rules! behaviours {
    ($($module:ident { $($name:ident $([$($need:expr),+])?),+ $(,)? })+) => {
        $(mod $module;)+

        const BEHAVIOURS: &[(&str, &[Need])] = &[
            $($((concat!(stringify!($module), "::", stringify!($name)), &[$($($need),+)?]),)+)+
        ];

        mod holds {
            $(mod $module {
                use crate::suite::Need;
                $(#[tokio::test]
                async fn $name() {
                    let needs: &[Need] = &[$($($need),+)?];
                    crate::suite::hold(stringify!($name), needs, crate::suite::$module::$name).await;
                })+
            })+
        }
    };
}

behaviours! {
    starts {
        an_app_runs,
        arguments_arrive_as_they_are,
        variables_arrive_as_they_are,
        nothing_of_our_environment_is_handed_on,
        the_port_is_told,
        a_command_is_expanded_from_all_it_gets,
        it_works_in_its_directory,
        home_and_tmpdir_can_be_written_to,
        it_runs_as_its_user [Need::User],
        it_can_gain_no_privileges,
        it_has_no_capabilities,
        it_has_three_descriptors,
        there_is_nothing_to_read,
        open_files_are_limited,
        no_core_is_written,
        a_start_repeated_is_the_same_start,
        an_id_in_use_is_not_taken,
        a_missing_program_is_told,
        a_missing_directory_is_told,
        nonsense_is_refused_and_leaves_nothing,
    }
    exits {
        a_status_is_told,
        a_death_by_signal_is_told,
        what_it_took_is_told,
        it_is_started_again,
        restarts_back_off,
        all_exits_are_counted_and_sixteen_kept,
        one_that_is_not_started_again_stays_ended,
        what_it_left_behind_is_ended_before_it_starts_again,
        exits_are_announced,
    }
    stops {
        it_is_asked_first,
        whoever_ignores_the_signal_is_killed,
        the_signal_is_the_one_that_was_named,
        a_signal_alone_ends_nobody_who_takes_it,
        the_whole_tree_ends_with_a_stop,
        children_that_left_the_session_end_with_a_kill,
        a_kill_does_not_ask,
        a_wait_between_restarts_can_be_stopped,
        a_stop_repeated_gives_the_same,
        what_is_unknown_is_not_stopped,
        zombies_are_reaped,
        over_waits_for_the_end,
    }
    execs {
        it_says_what_it_does,
        it_is_what_the_app_is,
        it_has_what_was_handed_to_it_and_nothing_else,
        it_meets_the_app,
        it_signals_the_app [Need::Signals],
        a_terminal_is_one,
        what_it_leaves_behind_ends_with_it,
        whoever_hangs_up_ends_it,
        it_ends_with_the_app,
        many_run_at_once,
        it_works_for_the_next_control_and_the_next_life,
        what_cannot_be_run_is_told,
    }
    checks {
        one_that_passes_makes_it_healthy,
        until_one_has_passed_it_is_starting,
        one_that_becomes_unwell_is_ended_and_started_again,
        one_that_does_not_heed_it_is_killed,
        why_it_was_ended_outlives_it,
        one_that_hangs_is_killed_with_all_that_it_started,
        one_that_passes_leaves_nothing_behind,
        one_that_floods_is_bounded,
        one_that_cannot_be_run_is_told,
        one_that_stands_still_is_not_asked [Need::Freezer],
        checks_go_on_without_a_control,
    }
    logs {
        lines_are_complete_and_in_order,
        errors_are_told_apart,
        any_bytes_come_through,
        a_long_line_is_split,
        the_last_words_before_an_exit_are_kept,
        a_line_without_an_end_is_kept,
        a_flood_is_bounded_and_counted,
        a_log_goes_on_over_restarts,
        a_log_is_followed_from_any_place,
        a_log_outlives_its_instance_until_it_is_removed,
    }
    controls {
        instances_outlive_control,
        the_next_control_knows_what_runs,
        exits_without_a_control_are_told_later,
        restarts_need_no_control,
        a_start_repeated_by_the_next_control_is_the_same,
        what_was_adopted_can_be_stopped,
        logs_go_on_without_a_control,
        one_whose_shim_died_is_gone,
        a_start_cut_short_leaves_nothing,
        what_no_record_knows_is_ended,
        two_platforms_leave_each_other_alone,
        going_down_leaves_nothing,
    }
    clearing {
        what_runs_is_not_cleared_away,
        nothing_is_left_but_the_log,
        what_is_unknown_is_cleared_away_already,
        an_id_that_was_cleared_away_can_be_used_again,
        lists_are_by_app,
    }
    networks {
        edge_gets_in [Need::Network],
        two_listen_on_the_same_port [Need::Network],
        low_ports_are_to_be_had [Need::Network],
        a_neighbour_is_not_reached [Need::Network],
        the_machine_is_not_reached [Need::Network],
        metadata_is_not_reached [Need::Network],
        the_way_in_outlives_control [Need::Network],
        the_way_in_ends_with_the_instance [Need::Network],
        where_it_listens_in_its_own_network_is_seen [Need::Network],
        other_apps_are_found_by_name [Need::Names],
        the_machines_network_is_to_be_had,
        ports_of_the_machine_are_given_once,
        a_port_that_is_taken_is_refused,
        a_worker_has_no_port,
        a_listener_elsewhere_is_told,
        its_own_name_leads_to_itself [Need::Namespaces],
        its_host_has_a_name_of_its_own [Need::Namespaces],
    }
    limits {
        processes_are_limited [Need::Limit("pids")],
        memory_is_limited_and_running_out_is_told [Need::Limit("memory")],
        one_that_ran_out_is_started_again [Need::Limit("memory")],
        a_child_that_ran_out_is_told_while_its_program_lives [Need::Limit("memory")],
        runtimes_find_their_limits [Need::Namespaces, Need::Limit("memory"), Need::Limit("cpu")],
        room_is_limited [Need::Room],
    }
    files {
        the_machines_programs_run,
        devices_work,
        the_root_is_read_only [Need::Namespaces],
        the_machines_files_are_not_there [Need::Namespaces],
        tmp_is_nobody_elses [Need::Namespaces],
        tmp_is_empty_after_a_restart [Need::NewTmp],
        what_is_mounted_can_be_read,
        what_is_mounted_to_be_read_cannot_be_written_to [Need::Namespaces],
        what_is_mounted_to_be_written_can_be [Need::Namespaces],
        what_is_mounted_lasts [Need::Namespaces],
        its_directory_is_read_only [Need::Namespaces],
        other_processes_are_not_there [Need::Namespaces],
        the_kernels_settings_are_read_only [Need::Namespaces],
        accounts_have_its_user [Need::Namespaces],
    }
    runs {
        a_run_gives_its_end_and_leaves_nothing,
        a_run_that_takes_too_long_is_killed,
        pipes_carry_every_byte,
        output_and_errors_stay_apart,
        the_end_of_the_input_arrives,
        the_status_of_an_attached_run_is_told,
        a_terminal_is_one,
        a_terminal_has_its_size,
        an_interrupt_at_the_terminal_arrives,
        what_is_attached_is_not_started_twice,
    }
    freezing {
        it_stands_still_and_goes_on [Need::Freezer],
        it_goes_on_with_its_memory_paged_out [Need::Freezer],
        it_can_be_stopped_as_it_stands [Need::Freezer],
        twice_is_as_once [Need::Freezer],
    }
    images {
        its_root_is_its_layers [Need::Images],
        upper_layers_hide_lower_ones [Need::Images],
        it_can_write_to_its_root [Need::Images],
        what_it_wrote_is_lost_with_it [Need::Images],
        its_users_are_its_own_within [Need::Images, Need::User],
        its_root_may_prepare_its_files [Need::Images, Need::User],
        its_users_are_nobody_outside [Need::ImageUsers, Need::User],
        edge_gets_into_an_image [Need::Images, Need::Network],
    }
}
