//! Which of an app's rules a request is held to, by its method and its path.

use std::cmp::Reverse;

use berth_spec::{HttpMethod, HttpRoute};

use crate::path::Asked;

/// The rules of an app, in the order in which they are looked at.
#[derive(Debug, Default)]
pub struct Rules {
    ordered: Vec<HttpRoute>,
}

/// The rules that a request is held to, by their places.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// None.
    None,
    /// This one.
    One(usize),
    /// It depends on how the app reads the path: the strictest of these, and of what holds where none does.
    Any(Vec<usize>),
}

impl Rules {
    /// Those of `routes`. The longest path comes first, and of two with the same one the one that names methods.
    #[must_use]
    pub fn new(routes: &[HttpRoute]) -> Self {
        let mut ordered = routes.to_vec();
        ordered
            .sort_by_key(|it| (Reverse(it.path.as_str().trim_end_matches('/').len()), it.methods.is_empty()));
        Self { ordered }
    }

    /// All of them, each at its place.
    #[must_use]
    pub fn all(&self) -> &[HttpRoute] {
        &self.ordered
    }

    /// Those for a request. Nothing is allocated for a path that can be read in one way alone.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Found {
        let asked = Asked::new(path);
        let first = |is_below: &dyn Fn(&str) -> bool| {
            let is_about = |it: &HttpRoute| is_below(it.path.as_str()) && takes(&it.methods, method);
            self.ordered.iter().position(is_about)
        };
        let written = first(&|prefix| asked.is_written_below(prefix));
        // Between the path as it is written and as the most diligent app reads it lie all other readings.
        if asked.is_certain() || (!asked.climbs() && written == first(&|prefix| asked.is_below(prefix))) {
            return written.map_or(Found::None, Found::One);
        }
        let about = self.ordered.iter().enumerate();
        let about = about.filter(|(_, it)| asked.is_below(it.path.as_str()) && takes(&it.methods, method));
        let about: Vec<usize> = about.map(|(place, _)| place).collect();
        if about.is_empty() { Found::None } else { Found::Any(about) }
    }
}

/// Whether a rule about `methods` is about `method`. HEAD is what a GET does without showing it (RFC 9110, 9.3.2).
#[must_use]
pub fn takes(methods: &[HttpMethod], method: &str) -> bool {
    let is = |it: &HttpMethod| {
        it.as_str().eq_ignore_ascii_case(method)
            || (it.as_str() == "GET" && method.eq_ignore_ascii_case("HEAD"))
    };
    methods.is_empty() || methods.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(path: &str, methods: &[&str]) -> HttpRoute {
        HttpRoute {
            path: path.parse().unwrap(),
            methods: methods.iter().map(|it| it.parse().unwrap()).collect(),
            request_timeout: None,
            concurrency: Some(1),
        }
    }

    /// The paths and methods of the rules that were found.
    fn found(rules: &Rules, method: &str, path: &str) -> Vec<String> {
        let places = match rules.find(method, path) {
            Found::None => Vec::new(),
            Found::One(place) => vec![place],
            Found::Any(places) => places,
        };
        let name = |place: usize| {
            let HttpRoute { path, methods, .. } = &rules.all()[place];
            methods.iter().map(|it| format!("{it} ")).collect::<String>() + path.as_str()
        };
        places.into_iter().map(name).collect()
    }

    #[test]
    fn the_longest_path_wins_and_with_it_the_one_that_names_the_method() {
        let rules = Rules::new(&[
            route("/", &[]),
            route("/api", &[]),
            route("/api/", &["GET", "POST"]),
            route("/api/reports", &["DELETE"]),
        ]);
        for (method, path, wanted) in [
            ("PUT", "/api/users", "/api"),
            ("GET", "/api/users", "GET POST /api/"),
            ("HEAD", "/api", "GET POST /api/"),
            ("post", "/API/Reports", "GET POST /api/"),
            ("DELETE", "/api/reports/1", "DELETE /api/reports"),
            ("DELETE", "/api/report", "/api"),
            ("DELETE", "/", "/"),
            ("GET", "/api/a%20b", "GET POST /api/"),
        ] {
            assert_eq!(found(&rules, method, path), [wanted], "{method} {path}");
        }
        assert_eq!(found(&Rules::new(&[route("/a", &[])]), "GET", "/b"), [""; 0]);
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_held_to_both() {
        let rules = Rules::new(&[route("/files", &[]), route("/files/big", &[]), route("/up", &[])]);
        for (path, wanted) in [
            ("/files/big%2Fx", &["/files/big", "/files"][..]),
            ("/files//big", &["/files/big", "/files"]),
            ("/files/big/../up", &["/files/big", "/files", "/up"]),
            ("/files/x/..;/up", &["/files", "/up"]),
            ("/big/..", &[]),
        ] {
            assert_eq!(found(&rules, "GET", path), wanted, "{path}");
        }
    }

    /// How an app may read a path: each of the steps that apps take, or not.
    #[derive(Debug, Clone, Copy)]
    struct Reader {
        decodes: bool,
        resolves_first: bool,
        resolves_last: bool,
        merges: bool,
        strips: bool,
        turns_backslashes: bool,
    }

    impl Reader {
        fn read(self, path: &str) -> String {
            let mut path = path.to_owned();
            if self.turns_backslashes {
                path = path.replace('\\', "/");
            }
            if self.resolves_first {
                path = resolved(&path);
            }
            if self.decodes {
                for (code, letter) in [("%61", "a"), ("%2e", "."), ("%2f", "/"), ("%5c", "\\"), ("%3b", ";")]
                {
                    path = path.replace(code, letter);
                }
            }
            if self.strips {
                let bare = path.split('/').map(|segment| segment.split(';').next().unwrap());
                path = bare.collect::<Vec<_>>().join("/");
            }
            if self.merges {
                while path.contains("//") {
                    path = path.replace("//", "/");
                }
            }
            if self.resolves_last { resolved(&path) } else { path }
        }
    }

    /// RFC 3986, 5.2.4.
    fn resolved(path: &str) -> String {
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(segments.pop()),
                other => segments.push(other),
            }
        }
        segments.iter().map(|segment| format!("/{segment}")).collect()
    }

    proptest! {
        /// Whatever a client writes, and however the app reads it: the rule for what it reads is among those that the request is held to. And one
        /// that is held to a single rule is by every app's reading.
        #[test]
        fn no_spelling_gets_around_a_rule(
            path in "(/|\\\\|a|b|A|\\.|\\.\\.|;|%61|%2e|%2f|%5c|%3b|/\\.\\./|/a|/b){0,10}",
            rules in proptest::collection::vec("(/[ab]){0,3}", 1..5),
            bits in 0_u8..64,
        ) {
            let bit = |place: u8| bits & (1 << place) != 0;
            let reader = Reader {
                decodes: bit(0),
                resolves_first: bit(1),
                resolves_last: bit(2),
                merges: bit(3),
                strips: bit(4),
                turns_backslashes: bit(5),
            };
            let path = format!("/{path}");
            let mut routes: Vec<HttpRoute> = rules.iter().map(|path| route(&format!("{path}/"), &[])).collect();
            routes.dedup_by(|one, other| one == other);
            let rules = Rules::new(&routes);
            let read = reader.read(&path);
            let wanted = rules.all().iter().position(|it| {
                let prefix = it.path.as_str().trim_end_matches('/');
                let below = read.to_ascii_lowercase().strip_prefix(prefix).map(str::to_owned);
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            match rules.find("GET", &path) {
                Found::None => prop_assert_eq!(wanted, None, "{} is read as {}", path, read),
                Found::One(place) => {
                    // An app for which what comes first is no segment has no routes at all.
                    let one = wanted.map(|it| rules.all()[it].path.clone());
                    prop_assert_eq!(one, Some(rules.all()[place].path.clone()), "{} is read as {}", path, read);
                }
                Found::Any(places) => {
                    let any = wanted.map(|it| rules.all()[it].path.clone());
                    let among = |it| places.iter().any(|place| rules.all()[*place].path == it);
                    prop_assert!(any.is_none_or(among), "{} is read as {}", path, read);
                }
            }
        }

        /// An ordinary path is held to the rule that a walk finds.
        #[test]
        fn an_ordinary_path_is_held_to_the_longest(
            path in "(/[abc]){1,4}", rules in proptest::collection::btree_set("(/[abc]){1,3}", 0..6),
        ) {
            let routes: Vec<HttpRoute> = rules.iter().map(|path| route(path, &[])).collect();
            let walk = rules.iter().filter(|it| path == **it || path.starts_with(&format!("{it}/")));
            let longest = walk.max_by_key(|it| it.len()).cloned();
            prop_assert_eq!(found(&Rules::new(&routes), "GET", &path), Vec::from_iter(longest));
        }
    }
}
