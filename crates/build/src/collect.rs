//! Which of what builds keep has to go: caches, layers and mirrors that no artifact needs. Pure, so that the choice can be tested.
//!
//! Artifacts are no matter of this: which of them are needed is control's to say. What goes here costs the next build time and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use berth_spec::{AppId, Timestamp};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Bytes for each app.
    pub per_app: u64,
    /// Bytes for all apps together.
    pub in_all: u64,
    /// What was not used for so long goes.
    pub unused: berth_spec::Millis,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// How many caches, layers and mirrors.
    pub things: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { things, bytes } = self;
        if *things == 0 {
            return f.write_str("nothing that builds keep could be removed");
        }
        write!(
            f,
            "removed {things} caches and layers with {} MiB, which the next builds make again",
            bytes >> 20
        )
    }
}

/// A thing that is kept and that no artifact needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thing {
    /// The app it is of; nothing for what all share.
    pub(crate) app: Option<AppId>,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) used: Timestamp,
}

/// Which of `things` go, by their places in it: what was not used for long; of each app that has too much and of all that is too much
/// what was used longest ago; and more of that until `needed` bytes are freed.
pub(crate) fn choose(things: &[Thing], keeping: Keeping, now: Timestamp, needed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..things.len()).collect();
    let at = |index: &usize| things.get(*index);
    order.sort_by_key(|index| at(index).map(|thing| (thing.used, thing.path.clone())));
    let mut of_apps: BTreeMap<&Option<AppId>, u64> = BTreeMap::new();
    let mut in_all = 0_u64;
    for thing in things {
        *of_apps.entry(&thing.app).or_default() += thing.bytes;
        in_all += thing.bytes;
    }
    let (mut gone, mut freed) = (Vec::new(), 0_u64);
    for index in order {
        let Some(thing) = things.get(index) else {
            continue;
        };
        let of_app = of_apps.entry(&thing.app).or_default();
        let stale = now.0.saturating_sub(thing.used.0) > keeping.unused.0;
        let too_much = (thing.app.is_some() && *of_app > keeping.per_app) || in_all > keeping.in_all;
        if stale || ((too_much || freed < needed) && thing.bytes > 0) {
            *of_app -= thing.bytes;
            in_all -= thing.bytes;
            freed += thing.bytes;
            gone.push(index);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn things() -> impl Strategy<Value = Vec<Thing>> {
        let thing = (0..4_u8, 0..100_u64, 0..1_000_u64);
        prop::collection::vec(thing, 0..20).prop_map(|things| {
            let thing = |(index, (app, bytes, used)): (usize, (u8, u64, u64))| Thing {
                app: (app > 0).then(|| format!("default/default/app-{app}").parse().unwrap()),
                path: format!("/{index}").into(),
                bytes,
                used: Timestamp(used),
            };
            things.into_iter().enumerate().map(thing).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_left_is_within_the_limits_and_newer_than_what_went(
            things in things(), per_app in 0..300_u64, in_all in 0..600_u64, needed in 0..300_u64
        ) {
            let keeping = Keeping { per_app, in_all, unused: berth_spec::Millis(900) };
            let gone = choose(&things, keeping, Timestamp(1_000), needed);
            let freed: u64 = gone.iter().map(|index| things[*index].bytes).sum();
            let left: Vec<&Thing> =
                things.iter().enumerate().filter(|(index, _)| !gone.contains(index)).map(|it| it.1).collect();
            let total: u64 = left.iter().map(|thing| thing.bytes).sum();
            prop_assert!(total <= in_all);
            prop_assert!(freed >= needed || total == 0);
            for thing in &left {
                prop_assert!(thing.used.0 >= 100);
                let of_app = left.iter().filter(|it| it.app == thing.app);
                prop_assert!(thing.app.is_none() || of_app.map(|it| it.bytes).sum::<u64>() <= per_app);
            }
            // Nothing goes that was used after something of the same app that stays and weighs anything.
            for index in &gone {
                let newer = left.iter().filter(|it| it.app == things[*index].app && it.bytes > 0);
                prop_assert!(newer.into_iter().all(|it| it.used >= things[*index].used));
            }
            // Once more changes nothing.
            let left: Vec<Thing> = left.into_iter().cloned().collect();
            prop_assert_eq!(choose(&left, keeping, Timestamp(1_000), 0), Vec::<usize>::new());
        }
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        let keeping = Keeping { per_app: 100, in_all: 200, unused: berth_spec::Millis(1_000) };
        let app: AppId = "default/default/shop".parse().unwrap();
        let thing = |path: &str, bytes, used| Thing {
            app: Some(app.clone()),
            path: path.into(),
            bytes,
            used: Timestamp(used),
        };
        let things = [thing("/npm", 50, 10), thing("/layer", 50, 20)];
        assert!(choose(&things, keeping, Timestamp(100), 0).is_empty());
        assert_eq!(choose(&things, keeping, Timestamp(100), 1), [0]);
        let more = [&things[..], &[thing("/next", 1, 5)]].concat();
        assert_eq!(choose(&more, keeping, Timestamp(100), 0), [2]);
    }
}
