//! Traces: what only holds on the machine it was written on.
//!
//! An absolute path below somebody's home, or the address of one package mirror, works for its author alone. Files of
//! every kind are read; lock files name registries by design.

use super::Finding;

/// Roots that differ between machines; found only where a path begins.
const PATHS: &[&str] = &["/root/", "/home/", "/work/", "/Users/"];
/// Package registries: the ordinary clients know where they are.
const HOSTS: &[&str] = &[
    "://crates.io",
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
    "deb.debian.org",
    "registry.npmjs.org",
    "pypi.org",
    "pythonhosted.org",
];
const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

pub(super) fn machine_traces(path: &str, text: &str) -> Vec<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if LOCK_FILES.contains(&name) || path == "tests/src/tidy/traces.rs" {
        return Vec::new(); // this file has to name them
    }
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let roots = PATHS.iter().chain(path.ends_with(".rs").then_some(&"/tmp/"));
        let traces = roots.filter(|root| has_root(line, root)).chain(HOSTS.iter().filter(|host| line.contains(**host)));
        let rule = |trace: &str| format!("`{trace}` is one machine's own; in tests use a temporary directory");
        found.extend(traces.map(|trace| Finding { path: path.into(), line: index + 1, rule: rule(trace) }));
    }
    found
}

/// Whether an absolute path in `line` begins with `root`.
fn has_root(line: &str, root: &str) -> bool {
    let inside_path = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}' | '*');
    line.match_indices(root).any(|(at, _)| !line[..at].ends_with(inside_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_registries_are_found_in_any_file() {
        for line in ["cd /root/shoal", "see `/home/ann/x`", "http://deb.debian.org/debian", "https://pypi.org/p"] {
            assert_eq!(machine_traces("docs/a.md", line).len(), 1, "{line}");
        }
        assert_eq!(machine_traces("node/src/ring.rs", "let p = \"/tmp/x\";").len(), 1);
    }

    #[test]
    fn parts_of_other_paths_and_lock_files_are_not() {
        assert!(machine_traces("docs/a.md", "docs/work/a and $HOME/home/ and https://docs.rs/redb").is_empty());
        assert!(machine_traces("Cargo.lock", "index.crates.io").is_empty());
    }
}
