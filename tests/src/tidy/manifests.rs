//! Manifests: what every crate of the workspace shares.
//!
//! Invariant: no crate can be published by accident, and none can leave the lints behind.

use super::Finding;

/// Lines that each crate's manifest has.
const INHERITED: &[&str] = &["publish.workspace = true", "edition.workspace = true", "license.workspace = true"];

/// The members of the workspace whose root manifest this is.
#[must_use]
pub fn members(root: &str) -> Vec<&str> {
    list(root, "members = [")
}

/// The crates below the root that are workspaces of their own.
#[must_use]
pub fn excluded(root: &str) -> Vec<&str> {
    list(root, "exclude = [")
}

fn list<'a>(root: &'a str, name: &str) -> Vec<&'a str> {
    let list = root.lines().find_map(|line| line.strip_prefix(name));
    list.map_or_else(Vec::new, |list| {
        list.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"')).collect()
    })
}

pub(super) fn inherits_from_workspace(path: &str, text: &str) -> Vec<Finding> {
    let has = |wanted: &str| text.lines().any(|line| line == wanted);
    let missing = |wanted: &str| Finding { path: path.into(), line: 1, rule: format!("`{wanted}` is missing") };
    if path == "Cargo.toml" {
        return if has("publish = false") { Vec::new() } else { vec![missing("publish = false")] };
    }
    let mut found: Vec<_> = INHERITED.iter().filter(|line| !has(line)).map(|line| missing(line)).collect();
    if !text.contains("\n[lints]\nworkspace = true") && !has("unsafe_code = \"forbid\"") {
        found.push(missing("[lints] workspace = true"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "publish.workspace = true\nedition.workspace = true\nlicense.workspace = true\n\n[lints]\nworkspace = true\n";

    #[test]
    fn a_crate_that_leaves_something_behind_is_found() {
        assert!(inherits_from_workspace("gossip/Cargo.toml", GOOD).is_empty());
        for line in INHERITED.iter().chain(&["workspace = true"]) {
            let without: Vec<_> = GOOD.lines().filter(|other| other != line).collect();
            assert_eq!(inherits_from_workspace("gossip/Cargo.toml", &without.join("\n")).len(), 1, "{line}");
        }
    }

    #[test]
    fn a_workspace_that_may_be_published_is_found() {
        assert!(inherits_from_workspace("Cargo.toml", "publish = false\n").is_empty());
        assert_eq!(inherits_from_workspace("Cargo.toml", "publish = true\n").len(), 1);
    }

    #[test]
    fn members_are_read_from_the_root() {
        let root = "[workspace]\nmembers = [\"protocol\", \"node\"]\nexclude = [\"bench\"]\n";
        assert_eq!(members(root), ["protocol", "node"]);
        assert_eq!(excluded(root), ["bench"]);
        assert!(members("[workspace]\n").is_empty() && excluded("[workspace]\n").is_empty());
    }
}
