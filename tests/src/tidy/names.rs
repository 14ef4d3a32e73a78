//! Names: the field's words, one meaning each, and files named for what they hold.
//!
//! Source: DESIGN §2. A word is a part of an identifier (`leader_id`, `LeaderId`); comments may say "leaderless".

use super::{File, Finding};

/// Drawers: names under which anything can be put.
const DRAWERS: &[&str] = &["util", "utils", "common", "types", "helper", "helpers", "misc", "mod"];
/// Words that name what Shoal does not have.
const FOREIGN_WORDS: &[&str] =
    &["leader", "leaders", "master", "masters", "slave", "slaves", "shard", "shards", "vnode"];
/// Endings that say nothing of a type.
const EMPTY_ENDINGS: &[&str] = &["Manager", "Handler", "Service", "Helper", "Util", "Utils"];

pub(super) fn file_is_named_for_a_noun(file: &File<'_>) -> Vec<Finding> {
    let drawer = file.path.split('/').map(|part| part.trim_end_matches(".rs")).find(|part| DRAWERS.contains(part));
    let found = drawer.map(|name| file.finding(1, format!("`{name}` is a drawer: name the file for what it holds")));
    found.into_iter().collect()
}

pub(super) fn uses_the_fields_words(file: &File<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for token in file.tokens {
        if let Some(word) = words(token.text).into_iter().find(|word| FOREIGN_WORDS.contains(&word.as_str())) {
            found.push(file.finding(token.line, format!("`{}`: Shoal has no {word}; see DESIGN's words", token.text)));
        }
    }
    found
}

pub(super) fn types_and_getters_are_plain(file: &File<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, pair) in file.tokens.windows(2).enumerate() {
        let name = pair[1].text;
        if matches!(pair[0].text, "struct" | "enum" | "trait" | "type")
            && EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending))
        {
            found.push(file.finding(pair[1].line, format!("`{name}` says nothing: name what it is")));
        }
        let is_getter = name.starts_with("get_") && name != "get_mut" && !name.starts_with("get_or_");
        if pair[0].text == "fn" && is_getter && is_public(file, at) {
            found.push(file.finding(pair[1].line, format!("`{name}`: leave `get_` out")));
        }
    }
    found
}

/// Whether the definition whose keyword is token `at` is `pub`; only words and `(...)` stand between.
fn is_public(file: &File<'_>, at: usize) -> bool {
    let before = file.tokens[..at].iter().rev().take_while(|token| !matches!(token.text, ";" | "{" | "}" | "]"));
    before.take(8).any(|token| token.text == "pub")
}

/// `LeaderId`, `leader_id` and `LEADER_ID` as `leader`, `id`.
fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("it starts with one").extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    fn broken(code: &str) -> usize {
        rules_broken("gossip/src/probe.rs", &format!("//! x\n{code}\n")).len()
    }

    #[test]
    fn a_drawer_is_found() {
        for path in ["node/src/ring/utils.rs", "node/src/host/mod.rs", "gossip/src/common/x.rs", "gossip/src/types.rs"]
        {
            assert_eq!(rules_broken(path, "//! x\n").len(), 1, "{path}");
        }
        assert!(rules_broken("gossip/src/modest.rs", "//! x\n").is_empty());
    }

    #[test]
    fn foreign_words_are_found_in_any_case_and_only_whole() {
        for code in ["let leader_id = 1;", "struct ShardMap;", "const MASTER: u8 = 1;", "let masters = 2;"] {
            assert_eq!(broken(code), 1, "{code}");
        }
        assert_eq!(broken("let header = loader(mastering); // no leader\nlet x = \"shard\";"), 0);
    }

    #[test]
    fn empty_type_names_are_found() {
        assert_eq!(broken("pub struct RingManager;"), 1);
        assert_eq!(broken("enum RequestHandler {}"), 1);
        assert_eq!(broken("struct Managed;\nimpl Service for X {}"), 0);
    }

    #[test]
    fn getters_are_found_but_sentences_of_tests_are_not() {
        assert_eq!(broken("pub fn get_row() {}"), 1);
        assert_eq!(broken("pub(crate) async fn get_row() {}"), 1);
        assert_eq!(
            broken("fn get_of_a_missing_key_is_absent() {}\npub fn get_mut() {}\npub struct X;\nfn get_x() {}"),
            0
        );
    }
}
