//! The house: which room of `node` may import which, and which crate may name which.
//!
//! Source: DESIGN §3. Data flows one way, so a room that reaches for one it does not stand on is a design error long
//! before it is a cycle. Shape: tables of what is allowed; a new room needs a row here and a paragraph in
//! ARCHITECTURE.md.

use super::code::{Token, names_at};
use super::{File, Finding};

/// A room of `node/src` and the rooms whose items it may name.
const ROOMS: &[(&str, &[&str])] = &[
    ("ring", &[]),
    ("storage", &[]),
    ("system", &[]),
    ("coordinator", &["ring"]),
    ("replica", &["storage"]),
    ("repair", &["ring", "storage"]),
    ("node", &["ring", "storage", "system", "coordinator", "replica", "repair"]),
    ("host", &["ring", "storage", "system", "coordinator", "replica", "repair", "node"]),
    ("testing", &["ring", "storage", "system", "coordinator", "replica", "repair", "node", "host"]),
    ("cli", &["host"]),
];

/// Where code lives, and the crates of ours that it may name; the first matching row counts.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol/src/", &[]),
    ("gossip/src/", &["shoal_protocol"]),
    ("client-rs/src/", &["shoal_protocol"]),
    ("client-wasm/src/", &["shoal_protocol", "shoal_client"]),
    ("node/src/cli", &["shoal_protocol", "shoal_client"]),
    ("node/src/testing", &["shoal_protocol", "shoal_gossip", "shoal_client"]),
    ("node/src/main.rs", &["shoal_node"]),
    ("node/src/", &["shoal_protocol", "shoal_gossip"]),
];

const ALL_CRATES: &[&str] = &["shoal_protocol", "shoal_gossip", "shoal_node", "shoal_client", "shoal_client_wasm"];

/// The rooms that `architecture` has no `### room` heading for.
#[must_use]
pub fn undescribed(architecture: &str) -> Vec<&'static str> {
    let described = |room: &str| architecture.lines().any(|line| line.trim_start_matches("### ") == room);
    ROOMS.iter().map(|(room, _)| *room).filter(|room| !described(room)).collect()
}

pub(super) fn imports_follow_the_house(file: &File<'_>) -> Vec<Finding> {
    let Some(modules) = module_path(file.path) else { return Vec::new() };
    let own = modules[0];
    let Some((_, stands_on)) = ROOMS.iter().find(|(room, _)| *room == own) else {
        return vec![file.finding(1, format!("`{own}` is no room: add it to tidy's table and to ARCHITECTURE.md"))];
    };
    let mut found = Vec::new();
    for name in names_from_root(file, modules.len()) {
        if name.text == own || stands_on.contains(&name.text) {
            continue;
        }
        let why = if ROOMS.iter().any(|(room, _)| *room == name.text) {
            format!("{own} may not import {}: it stands on {stands_on:?}", name.text)
        } else {
            format!("`crate::{}` names no room: name the room that defines it", name.text)
        };
        found.push(file.finding(name.line, why));
    }
    found
}

pub(super) fn crates_follow_the_house(file: &File<'_>) -> Vec<Finding> {
    let Some((_, allowed)) = CRATES.iter().find(|(place, _)| file.path.starts_with(place)) else { return Vec::new() };
    let named = file.tokens.iter().filter(|token| ALL_CRATES.contains(&token.text));
    let foreign = named.filter(|token| !allowed.contains(&token.text));
    foreign.map(|token| file.finding(token.line, format!("may not name {}, only {allowed:?}", token.text))).collect()
}

/// `node/src/ring/placement.rs` as `ring`, `placement`; nothing for the crate's roots and for other crates.
fn module_path(path: &str) -> Option<Vec<&str>> {
    let inside = path.strip_prefix("node/src/")?.strip_suffix(".rs")?;
    (inside != "lib" && inside != "main").then(|| inside.split('/').collect())
}

/// The first names of all paths that start at the crate's root: `crate::x`, or enough `super::` to leave `depth` modules,
/// and the module of the unit tests where they are written.
fn names_from_root<'a>(file: &File<'a>, depth: usize) -> Vec<Token<'a>> {
    let text = |at: usize| file.tokens.get(at).map_or("", |token| token.text);
    let mut names = Vec::new();
    for (at, token) in file.tokens.iter().enumerate() {
        let starts = at == 0 || text(at - 1) != "::";
        if !starts || text(at + 1) != "::" {
            continue;
        }
        let ups = (0..).take_while(|step| text(at + 2 * step) == "super").count();
        if token.text == "crate" {
            names.extend(names_at(file.tokens, at + 2));
        } else if ups > 0 && ups == depth + usize::from(token.line >= file.tests_line) {
            names.extend(names_at(file.tokens, at + 2 * ups));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;
    use super::*;

    fn broken(path: &str, code: &str) -> Vec<String> {
        rules_broken(path, &format!("//! x\n{code}\n"))
    }

    #[test]
    fn a_room_imports_only_what_it_stands_on() {
        assert!(broken("node/src/coordinator/quorum.rs", "use crate::ring::Ring;").is_empty());
        assert_eq!(broken("node/src/ring/placement.rs", "use crate::storage::Row;").len(), 1);
        assert_eq!(broken("node/src/storage.rs", "fn f(x: crate::replica::Fence) {}").len(), 1);
        assert_eq!(broken("node/src/replica.rs", "use crate::node::Input;").len(), 1);
        assert_eq!(broken("node/src/host/quic.rs", "use crate::cli::Arguments;").len(), 1);
    }

    #[test]
    fn groups_and_supers_are_followed() {
        let group = broken("node/src/coordinator.rs", "use crate::{\n    ring::{Ring, View},\n    storage::Row,\n};");
        assert_eq!(group.len(), 1);
        assert!(group[0].starts_with("4: coordinator may not import storage"), "{group:?}");
        assert_eq!(broken("node/src/ring.rs", "use super::storage::Row;").len(), 1);
        assert_eq!(broken("node/src/ring/placement.rs", "use super::super::storage::Row;").len(), 1);
        assert!(broken("node/src/ring/placement.rs", "use super::storage::Row;").is_empty());
        let inside =
            |import: &str| broken("node/src/ring.rs", &format!("#[cfg(test)]\nmod tests {{\n    {import}\n}}")).len();
        assert_eq!((inside("use super::storage::Row;"), inside("use super::super::storage::Row;")), (0, 1));
    }

    #[test]
    fn a_path_past_the_rooms_and_an_unknown_room_are_found() {
        assert!(broken("node/src/ring.rs", "use crate::Row;")[0].contains("names no room"));
        assert!(broken("node/src/attic.rs", "")[0].contains("is no room"));
        assert!(broken("node/src/ring.rs", "pub(crate) struct Ring;").is_empty());
    }

    #[test]
    fn crates_name_only_crates_below_them() {
        assert_eq!(broken("protocol/src/frame.rs", "use shoal_node::ring::Ring;").len(), 1);
        assert_eq!(broken("gossip/src/probe.rs", "use shoal_client::Client;").len(), 1);
        assert_eq!(broken("node/src/host.rs", "use shoal_client::Client;").len(), 1);
        assert!(broken("node/src/cli/put.rs", "use shoal_client::Client;").is_empty());
        assert!(broken("tests/src/world.rs", "use shoal_node::ring::Ring;").is_empty());
    }

    #[test]
    fn a_room_without_a_heading_is_undescribed() {
        let all: String = ROOMS.iter().map(|(room, _)| format!("### {room}\ntext\n")).collect();
        assert!(undescribed(&all).is_empty());
        assert_eq!(undescribed(&all.replace("### ring\n", "the ring\n")), ["ring"]);
    }
}
