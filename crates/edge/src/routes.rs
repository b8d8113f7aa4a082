//! What holds for parts of an app alone: how long its instances may take there, and how many requests there are at a time over all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use berth_routing::rules::{Found, Rules};
use berth_spec::HttpRoute;

/// The rules of an app, and how many requests there are by each. It outlives snapshots for as long as the rules are the same.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    said: Vec<HttpRoute>,
    rules: Rules,
    /// In the order of `rules`.
    taken: Vec<Arc<AtomicU64>>,
}

/// What a request is held to, for as long as it is under way.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    /// How long an instance may take to begin its answer.
    request_timeout: Option<Duration>,
    /// Whether that is so whatever holds for the app, and not the lesser of both.
    replaces: bool,
    place: Option<Place>,
    /// Where it depends on the app which rule it is.
    more: Vec<Place>,
}

/// A request among those that there may be at a time.
#[derive(Debug)]
struct Place(Arc<AtomicU64>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// There are as many requests as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Routes {
    /// As `said`. Requests that came by a rule of `before` that is there still go on to count.
    pub(crate) fn new(said: &[HttpRoute], before: &Self) -> Self {
        let rules = Rules::new(said);
        let taken = |rule: &HttpRoute| {
            let same = |it: &&HttpRoute| it.path == rule.path && it.methods == rule.methods;
            let at = before.rules.all().iter().position(|it| same(&it));
            at.and_then(|at| before.taken.get(at)).map(Arc::clone).unwrap_or_default()
        };
        let taken = rules.all().iter().map(taken).collect();
        Self { said: said.to_vec(), rules, taken }
    }

    pub(crate) fn is_of(&self, said: &[HttpRoute]) -> bool {
        self.said == said
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// What a request is held to. It is counted until that is dropped.
    pub(crate) fn enter(&self, method: &str, path: &str) -> Result<Ruling, Crowded> {
        let mut ruling = Ruling::default();
        match self.rules.find(method, path) {
            Found::None => {}
            Found::One(at) => {
                ruling.replaces = self.rule(at).is_some_and(|it| it.request_timeout.is_some());
                ruling.request_timeout = self.timeout(at);
                ruling.place = self.place(at)?;
            }
            Found::Any(places) => {
                for at in places {
                    ruling.more.extend(self.place(at)?);
                    ruling.request_timeout = least(ruling.request_timeout, self.timeout(at));
                }
            }
        }
        Ok(ruling)
    }

    fn rule(&self, at: usize) -> Option<&HttpRoute> {
        self.rules.all().get(at)
    }

    fn timeout(&self, at: usize) -> Option<Duration> {
        self.rule(at)?.request_timeout.map(|it| it.as_duration())
    }

    fn place(&self, at: usize) -> Result<Option<Place>, Crowded> {
        let limit = self.rule(at).and_then(|it| it.concurrency);
        let (Some(limit), Some(taken)) = (limit, self.taken.get(at)) else { return Ok(None) };
        let more = |count: u64| (count < limit.into()).then_some(count + 1);
        match taken.fetch_update(SeqCst, SeqCst, more) {
            Ok(_before) => Ok(Some(Place(Arc::clone(taken)))),
            Err(_full) => Err(Crowded),
        }
    }
}

impl Ruling {
    /// How long an instance may take for which `otherwise` holds; for ever when nothing is said.
    pub(crate) fn request_timeout(&self, otherwise: Option<Duration>) -> Option<Duration> {
        if self.replaces { self.request_timeout } else { least(self.request_timeout, otherwise) }
    }
}

fn least(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn route(path: &str, seconds: Option<u64>, concurrency: Option<u32>) -> HttpRoute {
        HttpRoute {
            path: path.parse().unwrap(),
            methods: Vec::new(),
            request_timeout: seconds.map(berth_spec::Millis::from_secs),
            concurrency,
        }
    }

    #[test]
    fn a_rule_gives_more_time_or_less_and_a_spelling_never_gives_more() {
        let rules =
            [route("/", None, None), route("/quick", Some(1), None), route("/quick/not", Some(9), None)];
        let routes = Routes::new(&rules, &Routes::default());
        let time = |path, otherwise| routes.enter("GET", path).unwrap().request_timeout(otherwise);
        assert_eq!(time("/quick", None), Some(SECOND));
        assert_eq!(time("/quick/not", Some(2 * SECOND)), Some(9 * SECOND));
        assert_eq!(time("/", Some(2 * SECOND)), Some(2 * SECOND));
        assert_eq!((time("/", None), time("*", None)), (None, None));
        assert_eq!(time("/quick/not/../x", Some(2 * SECOND)), Some(SECOND));
        assert_eq!(time("/quick%2Fnot", Some(SECOND / 2)), Some(SECOND / 2));
    }

    #[test]
    fn so_many_at_a_time_whichever_way_they_are_written_and_over_releases() {
        let rules = [route("/a", None, Some(2)), route("/b", None, Some(1))];
        let routes = Routes::new(&rules, &Routes::default());
        let (one, two) = (routes.enter("GET", "/a").unwrap(), routes.enter("POST", "/%61/x").unwrap());
        assert_eq!(routes.enter("GET", "/a").err(), Some(Crowded));
        let both = routes.enter("GET", "/b/../a").err();
        assert_eq!(both, Some(Crowded), "it may be about either");
        assert!(routes.enter("GET", "/b").is_ok(), "who was refused takes up no place");
        let longer = [route("/c", None, Some(1)), route("/a", None, Some(3))];
        let after = Routes::new(&longer, &routes);
        let three = after.enter("GET", "/a").unwrap();
        assert_eq!(after.enter("GET", "/a").err(), Some(Crowded), "the others are under way still");
        drop((one, two, three));
        assert!((0..3).map(|_| after.enter("GET", "/a")).collect::<Result<Vec<_>, _>>().is_ok());
    }
}
