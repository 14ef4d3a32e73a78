//! Tidy: the rules of the house that no compiler checks.
//!
//! Shape: a rule is a pure function from one file (path from the root, text) to findings, so each is tested on a planted
//! violation; `tests/it/tidy.rs` runs all of them over the repository. Rules read code with comments and literals
//! blanked (`code`), so a word in a sentence is never a finding. A rule that must give way names the file and the reason
//! in its own table.

mod code;
pub mod manifests;
mod names;
mod places;
pub mod rooms;
mod shape;
mod traces;

use std::fmt;

/// One line that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the root, with `/`.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// Which rule, and what to do instead.
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Everything that is wrong with one file.
#[must_use]
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut found = traces::machine_traces(path, text);
    if path.ends_with("Cargo.toml") {
        found.extend(manifests::inherits_from_workspace(path, text));
    }
    if path.ends_with(".rs") {
        let tokens = code::tokens(text);
        let tests_line = code::tests_line(text);
        let file = File { path, text, tokens: &tokens, tests_line };
        let rules = [
            shape::opens_with_header,
            shape::is_short,
            names::file_is_named_for_a_noun,
            names::uses_the_fields_words,
            names::types_and_getters_are_plain,
            rooms::imports_follow_the_house,
            rooms::crates_follow_the_house,
            places::touches_the_machine_only_in_the_host,
            places::selects_in_one_place,
            places::no_test_sleeps_or_is_skipped,
        ];
        found.extend(rules.iter().flat_map(|rule| rule(&file)));
    }
    found
}

/// A Rust file as the rules see it.
struct File<'a> {
    path: &'a str,
    text: &'a str,
    tokens: &'a [code::Token<'a>],
    /// The line on which its unit tests begin; `usize::MAX` when it has none.
    tests_line: usize,
}

impl File<'_> {
    fn finding(&self, line: usize, rule: impl Into<String>) -> Finding {
        Finding { path: self.path.into(), line, rule: rule.into() }
    }

    /// Whether `line` is test code: in a test crate, folder or file, or among the unit tests.
    fn is_test(&self, line: usize) -> bool {
        let whole =
            self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        whole || line >= self.tests_line
    }
}

/// What the rules say about a planted file.
#[cfg(test)]
fn rules_broken(path: &str, text: &str) -> Vec<String> {
    check(path, text).into_iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_file_breaks_no_rule() {
        let text = "//! The ring.\n//! Never a leader; see `thread::sleep`.\n\nuse crate::ring::placement;\n";
        assert_eq!(rules_broken("node/src/ring.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_finding_names_file_line_and_rule() {
        let found = check("node/src/ring.rs", "//! The ring.\nuse crate::storage::Row;\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("node/src/ring.rs:2: "), "{}", found[0]);
    }
}
