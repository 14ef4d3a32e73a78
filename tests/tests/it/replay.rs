//! Every case of `tests/cases` gives what it expects, and wrong files are refused by name.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use shoal_tests::replay::replay;

/// Shoal's answers where a case names alternatives.
const OURS: [&str; 3] = ["add_wins", "reset_observed", "enable_wins"];

fn cases() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn expected(value: &Value) -> &Value {
    OURS.iter().find_map(|name| value.get(name)).unwrap_or(value)
}

fn check(name: &str) {
    let text = std::fs::read_to_string(cases().join(name)).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let outcome = replay(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (cases, results) = (file["cases"].as_array().unwrap(), outcome.as_array().unwrap());
    assert_eq!(cases.len(), results.len());
    for (case, result) in cases.iter().zip(results) {
        let id = &case["id"];
        assert_eq!(result["id"], *id);
        let reads = case["expect_reads"].as_array().unwrap();
        for read in reads {
            let name = read["as"].as_str().unwrap();
            assert_eq!(result["reads"][name], *expected(&read["value"]), "{id}, read {name}");
        }
        assert_eq!(result["reads"].as_object().unwrap().len(), reads.len(), "{id}");
        for replica in ["A", "B", "C"] {
            assert_eq!(result["final"][replica], *expected(&case["expect_after_full_sync"]), "{id}, final {replica}");
        }
    }
}

#[test]
fn registers_read_what_the_cases_expect() {
    check("register.json");
    check("register-more.json");
}

#[test]
fn sets_read_what_the_cases_expect() {
    check("set.json");
    check("set-more.json");
}

#[test]
fn counters_read_what_the_cases_expect() {
    check("counter.json");
    check("counter-more.json");
}

#[test]
fn flags_read_what_the_cases_expect() {
    check("flag.json");
    check("flag-more.json");
}

#[test]
fn maps_read_what_the_cases_expect() {
    check("map.json");
    check("map-more.json");
}

#[test]
fn the_tool_prints_one_document_or_an_error_with_its_place() {
    let run = |file: PathBuf| Command::new(env!("CARGO_BIN_EXE_replay")).arg(file).output().unwrap();
    let good = run(cases().join("counter.json"));
    assert!(good.status.success());
    let document: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(document[0]["final"], json!({ "A": 13, "B": 13, "C": 13 }));

    let folder = tempfile::tempdir().unwrap();
    let wrong = |kind: &str, op: Value| {
        let file = folder.path().join("wrong.json");
        std::fs::write(&file, json!({ "type": kind, "cases": [{ "id": "w-1", "ops": [op] }] }).to_string()).unwrap();
        let outcome = run(file);
        assert_eq!(outcome.status.code(), Some(1), "{kind}");
        assert_eq!(outcome.stdout, b"");
        String::from_utf8(outcome.stderr).unwrap()
    };
    assert!(wrong("set", json!({ "op": "explode", "at": "A" })).contains("case \"w-1\", operation 1: `explode`"));
    assert!(wrong("set", json!({ "op": "add", "at": "A" })).contains("missing field `elem`"));
    assert!(wrong("set", json!({ "op": "add", "at": "D", "elem": 1 })).contains("no replica `D`"));
    assert!(wrong("set", json!({ "op": "put", "at": "A", "value": 1 })).contains("a set has no such operation"));
    assert!(wrong("register", json!({ "op": "put", "at": "A", "value": 1, "ctx": "r" })).contains("named `r`"));
    assert!(wrong("tree", json!({})).contains("unknown variant `tree`"));
    assert_eq!(run(folder.path().join("none.json")).status.code(), Some(1));
}
