//! The repository keeps the rules of the house (`shoal_tests::tidy`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shoal_tests::tidy::{check, manifests, rooms};

#[test]
fn the_house_is_in_order() {
    let files = files();
    assert!(files.iter().any(|(path, _)| path == "node/src/lib.rs"), "the walk found no node");
    let found: Vec<_> =
        files.iter().flat_map(|(path, text)| check(path, text)).map(|found| found.to_string()).collect();
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_crate_is_a_member_of_the_workspace_or_named_as_another() {
    let root = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let named = manifests::members(&root).into_iter().chain(manifests::excluded(&root));
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    let files = files();
    let crates = files.iter().filter_map(|(path, _)| path.strip_suffix("/Cargo.toml")).map(str::to_owned);
    assert_eq!(crates.collect::<BTreeSet<_>>(), named);
}

#[test]
fn every_room_is_described() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert_eq!(rooms::undescribed(&architecture), Vec::<&str>::new());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").into()
}

/// Every text file of the repository: path from the root, and text. What is built or installed is left out.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("target") || matches!(&*name, ".git" | "node_modules" | "shoal-dev") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let path = entry.path().strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                files.push((path, text));
            }
        }
    }
    files
}
