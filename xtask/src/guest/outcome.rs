//! What the guest has said so far, and whether that is all it had to say.

use std::collections::BTreeMap;
use std::fmt;

use crate::guest::word::{TestResult, Word};

/// How the guest's line came to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LineEnd {
    /// The guest has switched itself off.
    Closed,
    /// It said nothing for longer than anything takes, and was ended.
    Silent,
    /// It said something that is no word.
    Garbled(String),
}

/// Everything so far, by the names of the suites.
#[derive(Debug)]
pub(crate) struct Outcome {
    suites: BTreeMap<String, Suite>,
    begun: bool,
    ended: bool,
    problems: Vec<String>,
}

#[derive(Debug, Default)]
struct Suite {
    tests: Vec<String>,
    results: BTreeMap<String, TestResult>,
    seconds: f64,
}

impl Outcome {
    /// Nothing yet, of these suites.
    pub(crate) fn of(suites: &[&str]) -> Self {
        let suites = suites.iter().map(|name| ((*name).to_owned(), Suite::default())).collect();
        Self { suites, begun: false, ended: false, problems: Vec::new() }
    }

    pub(crate) fn add(&mut self, word: Word) {
        match word {
            Word::Begin { kernel, controllers } => {
                self.begun = true;
                println!("the guest is up: Linux {kernel}, control groups v2 with {controllers}");
            }
            Word::Suite { name, tests } => match self.suites.get_mut(&name) {
                Some(suite) => suite.tests = tests,
                None => self.problems.push(format!("the guest ran {name}, which nobody asked for")),
            },
            Word::Test { suite, name, result, seconds } => {
                let shown = match &result {
                    TestResult::Passed => "ok".to_owned(),
                    TestResult::Failed(tail) => format!("FAILED\n{tail}"),
                    TestResult::Untried(said) => format!("NOT TRIED: {said}"),
                };
                println!("{suite}: {name} ({seconds:.1} s): {shown}");
                let known = self.suites.get_mut(&suite).filter(|suite| suite.tests.contains(&name));
                match known {
                    Some(suite) => {
                        suite.seconds += seconds;
                        drop(suite.results.insert(name, result));
                    }
                    None => self.problems.push(format!("{suite}: {name} is a test that was not announced")),
                }
            }
            Word::Note { text } => println!("{text}"),
            Word::Broken { why } => self.problems.push(format!("the guest could not go on: {why}")),
            Word::End => self.ended = true,
        }
    }

    /// What is not as it should be, now that nothing more comes.
    pub(crate) fn judge(&self, end: LineEnd) -> Vec<String> {
        let mut problems = self.problems.clone();
        match end {
            LineEnd::Closed => {}
            LineEnd::Silent => problems.push("the guest fell silent and was ended".to_owned()),
            LineEnd::Garbled(why) => problems.push(why),
        }
        if !self.begun {
            problems.push("the guest did not come up".to_owned());
        }
        if !self.ended {
            problems.push("the guest did not come to its end".to_owned());
        }
        for (name, suite) in &self.suites {
            if suite.tests.is_empty() {
                problems.push(format!("{name}: no test of it was found"));
            }
            for test in &suite.tests {
                match suite.results.get(test) {
                    Some(TestResult::Passed) => {}
                    Some(TestResult::Failed(_)) => problems.push(format!("{name}: {test} failed")),
                    Some(TestResult::Untried(said)) => {
                        problems.push(format!("{name}: {test} did not try: {said}"));
                    }
                    None => problems.push(format!("{name}: nothing was heard of {test}")),
                }
            }
        }
        problems
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, suite) in &self.suites {
            let passed = suite.results.values().filter(|result| **result == TestResult::Passed).count();
            writeln!(f, "{name:<44} {passed:>3} of {:>3} passed", suite.tests.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Word {
        Word::Begin { kernel: "6".to_owned(), controllers: "memory".to_owned() }
    }

    fn suite(tests: &[&str]) -> Word {
        Word::Suite { name: "a".to_owned(), tests: tests.iter().map(|&test| test.to_owned()).collect() }
    }

    fn test(name: &str, result: TestResult) -> Word {
        Word::Test { suite: "a".to_owned(), name: name.to_owned(), result, seconds: 1.0 }
    }

    fn problems(words: &[Word], end: LineEnd) -> Vec<String> {
        let mut outcome = Outcome::of(&["a"]);
        words.iter().cloned().for_each(|word| outcome.add(word));
        outcome.judge(end)
    }

    #[test]
    fn all_of_it_is_well_and_nothing_less() {
        let all = [begin(), suite(&["one"]), test("one", TestResult::Passed), Word::End];
        assert_eq!(problems(&all, LineEnd::Closed), [""; 0]);
        for left_out in 0..all.len() {
            let mut less = all.to_vec();
            less.remove(left_out);
            assert!(!problems(&less, LineEnd::Closed).is_empty(), "without {:?}", all[left_out]);
        }
        assert!(!problems(&all, LineEnd::Silent).is_empty());
        assert!(!problems(&all, LineEnd::Garbled("?".to_owned())).is_empty());
    }

    #[test]
    fn a_test_that_failed_did_not_try_or_was_not_heard_of_is_named() {
        let failed = test("one", TestResult::Failed("why".to_owned()));
        let untried = test("two", TestResult::Untried("NOT TESTED: no".to_owned()));
        let words = [begin(), suite(&["one", "two", "three"]), failed, untried, Word::End];
        assert_eq!(
            problems(&words, LineEnd::Closed),
            ["a: one failed", "a: two did not try: NOT TESTED: no", "a: nothing was heard of three"]
        );
        let stray = [begin(), suite(&["one"]), test("other", TestResult::Passed), Word::End];
        assert_eq!(problems(&stray, LineEnd::Closed).len(), 2);
    }
}
