//! What can go wrong in the world, counted; and bugs that are planted to see whether they are caught.

use std::collections::BTreeMap;
use std::fmt;

use berth_control::invariant::Invariant;

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

kinds! {
    /// A kind of fault.
    Fault {
        /// Control was killed.
        ControlKilled,
        /// Control was killed after it wrote a snapshot and before it sent it.
        KilledBeforeSend,
        /// Control was killed while actions of a plan were left.
        KilledBetweenActions,
        /// Control was killed while answers waited for the disk.
        KilledBeforeAnswer,
        /// The whole machine was started again.
        Rebooted,
        /// A crash dropped appends that were not synced.
        UnsyncedLost,
        /// Appends that nobody was told of survived a crash.
        UnsyncedKept,
        /// An append was cut in two by a crash, and dropped as a whole.
        AppendTorn,
        /// An append failed for want of space.
        DiskFull,
        /// A sync failed, which ends the process.
        SyncFailed,
        /// A snapshot could not be written.
        SnapshotNotWritten,
        /// An instance could not be started.
        StartFailed,
        /// An app crashed in its instance.
        AppCrashed,
        /// A shim died, and its tree with it.
        ShimDied,
        /// An app listened late.
        ListensLate,
        /// An app listened on another port.
        ListensElsewhere,
        /// An app never listened.
        ListensNever,
        /// An app's own check failed, now and then or always.
        CheckFails,
        /// An app crashed over and over.
        CrashLoop,
        /// An app ignored the signal until it was killed.
        IgnoredSignal,
        /// Edge died.
        EdgeDied,
        /// Edge stopped to follow.
        EdgeWedged,
        /// Control had edge restarted.
        EdgeRestarted,
        /// The connection between edge and control broke.
        LinkBroke,
        /// The wall clock jumped ahead.
        ClockAhead,
        /// The wall clock jumped back.
        ClockBack,
        /// A build failed.
        BuildFailed,
        /// A build hung until its deadline.
        BuildHung,
        /// A release command failed.
        CommandFailed,
        /// A release command hung until it was ended.
        CommandHung,
        /// Memory was short.
        MemoryShort,
        /// A fact was stale when it was decided on.
        StaleFact,
        /// Somebody asked again with the same key.
        AskedAgain,
        /// An append was refused and everything decided after it was discarded.
        Discarded,
        /// A request waited because no instance took it.
        RequestHeld,
        /// A notice of a change got lost, so that only the next look at all apps finds it.
        NoticeLost,
    }
}

/// How often each fault came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<Fault, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    /// Adds the counts of another world.
    pub fn merge(&mut self, other: &Self) {
        for (fault, count) in &other.counts {
            *self.counts.entry(*fault).or_default() += count;
        }
    }

    /// The faults that never came.
    #[must_use]
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.iter().filter(|fault| !self.counts.contains_key(fault)).copied().collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, count) in &self.counts {
            writeln!(f, "{count:>9} {fault:?}")?;
        }
        Ok(())
    }
}

kinds! {
    /// A bug of whoever performs what control plans and decides.
    Planted {
        /// Stops an instance before edge said that it applied the snapshot without it.
        StopsBeforeApplied,
        /// Stops an instance while requests are in flight to it.
        StopsBeforeDrained,
        /// Takes no edge process for alive that has not connected yet.
        OverlooksNewEdge,
        /// Answers before the journal is synced.
        AnswersBeforeSync,
        /// Replays the journal but for one event.
        ForgetsEvent,
        /// Goes on from a state in which a superseded release waits for its turn again.
        RevivesSuperseded,
        /// Goes on from a state in which an activation is forgotten.
        ForgetsActivation,
        /// Goes on from a state in which the count of instances is forgotten.
        ForgetsOrdinals,
        /// Never clears away what nothing wants.
        LeaksInstances,
        /// Sends edge an older snapshot again.
        SendsOlderSnapshot,
        /// Sends a snapshot before it is durable.
        SendsBeforeDurable,
        /// Leaves an app's routes out of a snapshot.
        DropsRoutes,
        /// Sends what is meant for one app to another as well.
        SharesHosts,
        /// Routes to an instance that is not ready.
        RoutesUnready,
        /// Gives out a port that edge may still send requests to.
        ReusesPorts,
        /// Goes on from a state in which it is forgotten what cron entries were decided in the last day.
        RepeatsMoments,
        /// Starts an instance while another one has a volume of its.
        StartsBesideHolder,
        /// Has an instance stand still while requests are in flight to it or may come.
        FreezesBeforeDrained,
        /// Wakes an app before what stands still goes on.
        WakesBeforeThawed,
        /// Collects artifacts of all releases but the one that serves.
        CollectsTooMuch,
    }
}

impl Planted {
    /// The invariant that has to catch it.
    #[must_use]
    pub fn caught_by(self) -> Invariant {
        match self {
            Self::StopsBeforeApplied | Self::StopsBeforeDrained | Self::OverlooksNewEdge => {
                Invariant::StoppedIsUnreachable
            }
            Self::AnswersBeforeSync => Invariant::AcknowledgedIsDurable,
            Self::ForgetsEvent => Invariant::ReplayGivesServedState,
            Self::RevivesSuperseded => Invariant::ActivatedInOrder,
            Self::ForgetsActivation => Invariant::OneMovesTraffic,
            Self::ForgetsOrdinals => Invariant::NumbersAreUnique,
            Self::LeaksInstances => Invariant::NothingLeaks,
            Self::SendsOlderSnapshot | Self::SendsBeforeDurable => Invariant::SnapshotsGoForward,
            Self::DropsRoutes => Invariant::SomethingServes,
            Self::SharesHosts => Invariant::HostsAreNotShared,
            Self::RoutesUnready => Invariant::RoutedIsAlive,
            Self::ReusesPorts => Invariant::EndpointsAreNotShared,
            Self::RepeatsMoments => Invariant::MomentsRunOnce,
            Self::StartsBesideHolder => Invariant::VolumesAreExclusive,
            Self::FreezesBeforeDrained => Invariant::StillIsUnreachable,
            Self::WakesBeforeThawed => Invariant::RoutedGoesOn,
            Self::CollectsTooMuch => Invariant::RollbackExists,
        }
    }

    /// Whether it is a state that was wrong from the start of the process: what a replay would give is then of no use to compare with.
    pub(crate) fn spoils_replay(self) -> bool {
        matches!(
            self,
            Self::RevivesSuperseded | Self::ForgetsActivation | Self::ForgetsOrdinals | Self::RepeatsMoments
        )
    }
}
