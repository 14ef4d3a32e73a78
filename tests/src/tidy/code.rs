//! Rust text as tokens: words and punctuation, without comments, strings and characters.
//!
//! Shape: far less than a parser; enough to find a path (`crate::ring::Ring`), a definition or a macro call.
//! Invariant: a token's text is a slice of the file, its line the file's own.

/// A word, `::`, or one other character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// All tokens of a file, in order.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(next) = text[at..].chars().next() {
        let skipped = comment_bytes(&text[at..]).or_else(|| literal_bytes(text, at));
        let bytes = skipped.unwrap_or_else(|| token_bytes(&text[at..]));
        let piece = &text[at..at + bytes];
        if skipped.is_none() && !next.is_whitespace() {
            tokens.push(Token { text: piece, line });
        }
        line += piece.matches('\n').count();
        at += bytes;
    }
    tokens
}

/// The line of the `#[cfg(test)]` before the unit tests in this file; `usize::MAX` when there are none.
pub(super) fn tests_line(text: &str) -> usize {
    let mut lines = text.lines().zip(text.lines().skip(1));
    let before =
        lines.position(|(this, next)| this == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{'));
    before.map_or(usize::MAX, |index| index + 1)
}

/// The first names behind `tokens[at]`: the name itself, or every name at the top of a `{...}` group.
pub(super) fn names_at<'a>(tokens: &'a [Token<'a>], at: usize) -> Vec<Token<'a>> {
    match tokens.get(at) {
        Some(first) if first.text != "{" => vec![*first],
        _ => group_names(tokens, at),
    }
}

fn group_names<'a>(tokens: &'a [Token<'a>], at: usize) -> Vec<Token<'a>> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for pair in tokens[at.min(tokens.len())..].windows(2) {
        match pair[0].text {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(pair[0].text, "{" | ",") && pair[1].text != "}" {
            names.push(pair[1]);
        }
    }
    names
}

fn token_bytes(rest: &str) -> usize {
    let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    match (word, rest.starts_with("::")) {
        (0, true) => 2,
        (0, false) => rest.chars().next().map_or(0, char::len_utf8),
        (word, _) => word,
    }
}

fn comment_bytes(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return Some(at + 2);
            }
        }
    }
    Some(rest.len())
}

/// Bytes of the string or character that begins at `at`, prefixes such as `b` and `r#` being left to the tokens.
fn literal_bytes(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with('"') {
        return Some(match raw_hashes(&text[..at]) {
            Some(hashes) => end_of(rest, &format!("\"{}", "#".repeat(hashes))),
            None => end_unescaped(rest, '"'),
        });
    }
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) => Some(end_unescaped(rest, '\'')),
        (Some('\''), Some(c), Some('\'')) => Some(c.len_utf8() + 2),
        _ => None, // a lifetime, or no literal at all
    }
}

/// How many `#` stand between an `r` and the quote, when there is an `r`.
fn raw_hashes(before: &str) -> Option<usize> {
    let bare = before.trim_end_matches('#');
    let prefix = &bare[bare.rfind(|c: char| !is_word(c)).map_or(0, |at| at + 1)..];
    matches!(prefix, "r" | "br" | "cr").then_some(before.len() - bare.len())
}

fn end_of(rest: &str, end: &str) -> usize {
    rest[1..].find(end).map_or(rest.len(), |at| 1 + at + end.len())
}

fn end_unescaped(rest: &str, quote: char) -> usize {
    let mut escaped = true; // the opening quote closes nothing
    for (at, c) in rest.char_indices() {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = at > 0 && c == '\\' && !escaped;
    }
    rest.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        assert_eq!(words("a /* b /* c */ d */ e // f\n//! g\nh"), ["a", "e", "h"]);
        assert_eq!(words(r#"a("b \" c", 'd', '\'', "e")"#), ["a", "(", ",", ",", ",", ")"]);
        assert_eq!(words(r##"r#"a " b"# c br"\" d"##), ["r", "#", "c", "br", "d"]);
    }

    #[test]
    fn lifetimes_are_no_literals() {
        assert_eq!(words("fn f<'a>(x: &'a str) {}").join(" "), "fn f < ' a > ( x : & ' a str ) { }");
    }

    #[test]
    fn tokens_know_their_line() {
        assert_eq!(
            tokens("a\n\"x\ny\"\nb::c").iter().map(|t| (t.text, t.line)).collect::<Vec<_>>(),
            [("a", 1), ("b", 4), ("::", 4), ("c", 4)]
        );
    }

    #[test]
    fn a_group_gives_its_top_names() {
        let tokens = tokens("use crate::{ring::{A, b::C}, storage::Row, node};");
        let names: Vec<_> = names_at(&tokens, 3).iter().map(|t| t.text).collect();
        assert_eq!(names, ["ring", "storage", "node"]);
    }

    #[test]
    fn unit_tests_begin_at_their_attribute() {
        assert_eq!(tests_line("//! x\n#[cfg(test)]\nfn f() {}\n#[cfg(test)]\nmod tests {\n"), 4);
        assert_eq!(tests_line("//! x\n#[cfg(test)]\nmod tests;\nfn f() {}\n"), usize::MAX);
        assert_eq!(tests_line("//! x\n"), usize::MAX);
    }
}
