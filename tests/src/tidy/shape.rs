//! The shape of a file: a header that says what it is, and a length that fits a head.
//!
//! Units: lines, counted before the unit tests. Source: the median file of small systems that read well has 130 to 220
//! lines; 500 is where a file has become two nouns.

use super::{File, Finding};

const LINES_MAX: usize = 500;

pub(super) fn opens_with_header(file: &File<'_>) -> Vec<Finding> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![file.finding(1, "opens without a `//!` header: say what it is, its shape, units, source, invariants")]
}

pub(super) fn is_short(file: &File<'_>) -> Vec<Finding> {
    let lines = file.text.lines().count().min(file.tests_line - 1);
    if lines <= LINES_MAX {
        return Vec::new();
    }
    vec![file.finding(LINES_MAX + 1, format!("has {lines} lines before its tests, over {LINES_MAX}: split it by noun"))]
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    #[test]
    fn a_file_without_a_header_is_found() {
        let found = rules_broken("gossip/src/probe.rs", "use std::fmt;\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("1: opens without"), "{found:?}");
    }

    #[test]
    fn lines_count_until_the_unit_tests() {
        let long = |before: usize, after: usize| {
            format!("//! x\n{}#[cfg(test)]\nmod tests {{\n{}", "\n".repeat(before), "\n".repeat(after))
        };
        assert_eq!(rules_broken("gossip/src/probe.rs", &long(499, 400)), Vec::<String>::new());
        assert!(rules_broken("gossip/src/probe.rs", &long(500, 0))[0].contains("has 501 lines"));
    }
}
