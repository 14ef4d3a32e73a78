//! Places: what may stand only in some files.
//!
//! Clippy's bans (clippy.toml) name single functions and types; these rules name whole modules, and macros, which clippy
//! cannot. Source: DESIGN §3 (cores have no I/O).

use super::code::names_at;
use super::{File, Finding};

/// Code that performs effects, and code that runs outside the product.
const TOUCHES_THE_MACHINE: &[&str] = &[
    "node/src/host",
    "node/src/cli",
    "node/src/testing",
    "node/src/main.rs",
    "node/benches/",
    "node/tests/",
    "node/examples/",
    // The native half of the client, behind its feature `quic`.
    "client-rs/src/client",
    "client-rs/src/quic",
    "client-rs/src/transport",
    "client-rs/tests/",
    "client-rs/examples/",
    "bench/",
    "tests/",
];
const MACHINE_CRATES: &[&str] = &["tokio", "quinn", "quinn_proto", "rustls", "getrandom", "tempfile"];
const MACHINE_MODULES: &[&str] = &["env", "fs", "net", "os", "process", "thread"];

/// Where `select!` may stand, and why one cannot do without.
const SELECTS: &[(&str, &str)] = &[
    ("node/src/host/event_loop.rs", "the one place where a node waits"),
    ("node/src/cli/server.rs", "a process waits for its node, for signals and for its parent"),
    ("node/src/cli/dev.rs", "a parent waits for its children and for signals"),
];

pub(super) fn touches_the_machine_only_in_the_host(file: &File<'_>) -> Vec<Finding> {
    if TOUCHES_THE_MACHINE.iter().any(|place| file.path.starts_with(place)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let product = file.tokens.iter().take_while(|token| !file.is_test(token.line));
    for (at, token) in product.enumerate() {
        let is_path = file.tokens.get(at + 1).is_some_and(|next| next.text == "::");
        let starts = at == 0 || file.tokens[at - 1].text != "::";
        let modules = if token.text == "std" { names_at(file.tokens, at + 2) } else { Vec::new() };
        if is_path && starts && MACHINE_CRATES.contains(&token.text) {
            found.push(file.finding(token.line, format!("`{}`: only the host touches the machine", token.text)));
        } else if is_path && starts {
            let banned = modules.iter().filter(|name| MACHINE_MODULES.contains(&name.text));
            let rule = |name: &str| format!("`std::{name}`: only the host touches the machine");
            found.extend(banned.map(|name| file.finding(name.line, rule(name.text))));
        }
    }
    found
}

pub(super) fn selects_in_one_place(file: &File<'_>) -> Vec<Finding> {
    if SELECTS.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    let selects = file.tokens.windows(2).filter(|pair| pair[0].text == "select" && pair[1].text == "!");
    let rule = "`select!`: hand the event to the event loop, or name this file in tidy with a reason";
    selects.map(|pair| file.finding(pair[0].line, rule)).collect()
}

pub(super) fn no_test_sleeps_or_is_skipped(file: &File<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, token) in file.tokens.iter().enumerate() {
        if token.text == "sleep" && file.is_test(token.line) {
            found.push(file.finding(token.line, "a test sleeps: wait for the event itself"));
        }
        if token.text == "ignore" && at >= 2 && file.tokens[at - 2].text == "#" && file.tokens[at - 1].text == "[" {
            found.push(file.finding(token.line, "a skipped test proves nothing: mend it or remove it"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    fn broken(path: &str, code: &str) -> usize {
        rules_broken(path, &format!("//! x\n{code}\n")).len()
    }

    #[test]
    fn a_core_that_touches_the_machine_is_found() {
        for code in ["use std::fs;", "use std::{fmt, net::IpAddr};", "use tokio::sync::mpsc;", "std::thread::spawn(f);"]
        {
            assert_eq!(broken("node/src/ring.rs", code), 1, "{code}");
            assert_eq!(broken("node/src/host/files.rs", code), 0, "{code}");
        }
        assert_eq!(broken("node/src/ring.rs", "use std::io;\nuse crate::ring::net::Net;\nlet tokio = 1;"), 0);
    }

    #[test]
    fn unit_tests_of_a_core_may_use_files() {
        assert_eq!(broken("node/src/storage.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}"), 0);
    }

    #[test]
    fn a_second_select_is_found() {
        assert_eq!(broken("node/src/host/quic.rs", "tokio::select! { _ = a => {} }"), 1);
        assert_eq!(broken("node/src/host/event_loop.rs", "tokio::select! { _ = a => {} }"), 0);
        assert_eq!(broken("node/src/host/quic.rs", "let select = 1;"), 0);
    }

    #[test]
    fn a_test_that_sleeps_is_found_wherever_it_stands() {
        assert_eq!(broken("tests/tests/it/world.rs", "std::thread::sleep(wait);"), 1);
        assert_eq!(broken("node/src/host.rs", "#[cfg(test)]\nmod tests {\n    use tokio::time::sleep;\n}"), 1);
        assert_eq!(broken("node/src/host.rs", "tokio::time::sleep(wait).await;"), 0);
    }

    #[test]
    fn a_skipped_test_is_found() {
        assert_eq!(broken("tests/tests/it/world.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), 1);
        assert_eq!(broken("tests/tests/it/world.rs", "let ignore = 1;"), 0);
    }
}
