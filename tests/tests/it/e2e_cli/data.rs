//! Keys of every type, through every node.

use serde_json::{Value, json};

use super::program::Dev;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_put_through_one_node_is_read_scanned_counted_and_deleted_through_the_others() {
    let dev = Dev::start();
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        let via = dev.address(n);
        let put = dev.run(&["--via", via, "put", &format!("app/users/{key}"), &format!("{{\"n\": {n}}}")]);
        assert_eq!((put.code, put.out.as_str(), put.err.as_str()), (Some(0), "", ""), "nothing was replaced");
    }
    for n in 0..3 {
        let run = |arguments: &[&str]| dev.run(&[&["--via", dev.address(n)], arguments].concat()).ok();
        assert_eq!(run(&["get", "app/users/b"]), "{\"n\":1}\n");
        assert_eq!(run(&["scan", "app/users"]), "a\t{\"n\":0}\nb\t{\"n\":1}\nc\t{\"n\":2}\n");
        assert_eq!(run(&["scan", "app/users", "--reverse", "--keys", "--limit", "2"]), "c\nb\n");
        assert_eq!(run(&["count", "app/users"]), "3\n");
        assert_eq!(run(&["count", "app"]), "3\n");
    }
    let deleted = dev.run(&["del", "app/users/b"]);
    assert_eq!(deleted.err, "note: deletes {\"n\":1}\n");
    dev.run(&["--via", dev.address(2), "get", "app/users/b"]).fails("not_found", 3);
    assert_eq!(dev.run(&["count", "app/users"]).ok(), "2\n");
    assert_eq!(dev.run(&["del", "app/users/b"]).err, "note: nothing at app/users/b\n");
}

#[test]
fn a_put_says_what_it_replaces_and_a_blind_one_leaves_siblings() {
    let dev = Dev::start();
    let key = "app/users/ada";
    dev.run(&["put", key, "1"]).ok();
    assert_eq!(dev.run(&["put", key, "2"]).err, "note: replaces 1\n");
    let blind = dev.run(&["put", key, "3", "--blind"]);
    assert_eq!((blind.err.as_str(), blind.code), ("", Some(0)));

    let siblings = dev.run(&["get", key]);
    assert!(siblings.err.starts_with("note: 2 siblings"), "{siblings:?}");
    assert_eq!((siblings.code, siblings.out.as_str()), (Some(0), "2\n3\n"));
    let document = json_of(&dev.run(&["get", key, "--json"]).ok());
    assert_eq!(document["values"], json!([{ "json": 2 }, { "json": 3 }]));
    assert_eq!(document["type"], "register");

    assert_eq!(dev.run(&["put", key, "4"]).err, "note: replaces 2 siblings: 2 3\n");
    assert_eq!(dev.run(&["get", key]).ok(), "4\n");
    dev.run(&["put", "cache/k", "1"]).ok();
    assert_eq!(dev.run(&["put", "cache/k", "2"]).err, "", "the last write wins without a word");
    assert_eq!(dev.run(&["get", "cache/k"]).ok(), "2\n");
}

#[test]
fn every_type_has_its_operations() {
    let dev = Dev::start();
    let ok = |arguments: &[&str]| dev.run(arguments).ok();
    ok(&["counter", "add", "app/t/visits", "5"]);
    ok(&["counter", "add", "app/t/visits", "-2"]);
    assert_eq!(ok(&["counter", "get", "app/t/visits"]), "3\n");
    ok(&["counter", "reset", "app/t/visits"]);
    assert_eq!(ok(&["counter", "get", "app/t/visits"]), "0\n");
    ok(&["set", "add", "app/t/list", "milk", "bread"]);
    ok(&["set", "add", "app/t/list", "-7", "--int"]);
    ok(&["set", "remove", "app/t/list", "milk"]);
    assert_eq!(ok(&["set", "get", "app/t/list"]), "\"bread\"\n-7\n");
    ok(&["flag", "enable", "app/t/on"]);
    assert_eq!(ok(&["flag", "get", "app/t/on"]), "true\n");
    ok(&["flag", "disable", "app/t/on"]);
    assert_eq!(ok(&["flag", "get", "app/t/on"]), "false\n");
    ok(&["map", "set-field", "app/t/ada", "name", "\"Ada\""]);
    ok(&["counter", "add", "app/t/ada", "--field", "visits"]);
    ok(&["set", "add", "app/t/ada", "x", "--field", "tags", "--field", "deep"]);
    assert_eq!(ok(&["map", "get", "app/t/ada"]), "{\"name\":\"Ada\",\"tags\":{\"deep\":[\"x\"]},\"visits\":1}\n");
    ok(&["map", "remove-field", "app/t/ada", "name"]);
    assert_eq!(ok(&["map", "fields", "app/t/ada"]), "tags\nvisits\n");
    ok(&["register", "add-sibling", "app/t/r", "1"]);
    ok(&["register", "add-sibling", "app/t/r", "2"]);
    assert_eq!(ok(&["register", "get", "app/t/r"]), "1\n2\n");
}

#[test]
fn values_are_json_text_or_bytes_and_come_back_as_they_went() {
    let dev = Dev::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let put = dev.place.run_with(&["put", "app/v/bytes", "-", "--bytes"], &bytes);
    assert_eq!(put.code, Some(0), "{put:?}");
    let got = dev.place.command(&["get", "app/v/bytes"]).output().unwrap();
    assert_eq!(got.stdout, bytes);
    let file = dev.place.write("value", " {\"b\" : 1.50,\n \"a\": [ ] } ");
    dev.run(&["put", "app/v/json", &format!("@{file}")]).ok();
    assert_eq!(dev.run(&["get", "app/v/json"]).ok(), "{\"b\":1.50,\"a\":[]}\n");
    dev.run(&["put", "app/v/text", "milk & honey", "--text"]).ok();
    assert_eq!(dev.run(&["get", "app/v/text"]).ok(), "milk & honey\n");
    dev.run(&["put", "app/v/bare", "milk"]).fails("usage", 2);
    dev.run(&["put", "app/v/expired", "1", "--expires-in", "86400"]).ok();
    let expires_at = &json_of(&dev.run(&["get", "app/v/expired", "--json"]).ok())["values"][0]["expires_at"];
    assert!(expires_at.as_u64().is_some_and(|at| at > 1_700_000_000_000), "{expires_at}");
}

#[test]
fn one_session_goes_from_command_to_command() {
    let dev = Dev::start();
    for _ in 0..3 {
        dev.run(&["counter", "add", "app/t/n"]).ok();
    }
    assert_eq!(dev.run(&["counter", "get", "app/t/n"]).ok(), "3\n");
    let sessions = std::fs::read_dir(dev.place.path("state/shoal")).unwrap().flatten();
    let names: Vec<_> = sessions.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with(".session")).count(), 1, "{names:?}");
    dev.run(&["--sessionless", "counter", "add", "app/t/n"]).ok();
    assert_eq!(dev.run(&["counter", "get", "app/t/n"]).ok(), "4\n");
}

#[test]
fn the_cluster_tells_who_holds_what() {
    let dev = Dev::start();
    let located = json_of(&dev.run(&["locate", "app/users/ada", "--json"]).ok());
    let roles: Vec<_> = located["preference"].as_array().unwrap().iter().map(|node| &node["role"]).collect();
    assert_eq!(roles, ["primary"; 3]);
    let ring = json_of(&dev.run(&["ring", "app", "--json"]).ok());
    let held: Vec<_> = ring["nodes"].as_array().unwrap().iter().map(|node| &node["partitions"]).collect();
    assert_eq!(held, [256; 3]);
    assert!(ring["nodes"].as_array().unwrap().iter().all(|node| node["weight"] == 100), "{ring}");
    for n in 0..3 {
        let status = json_of(&dev.run(&["--via", dev.address(n), "status", "--json"]).ok());
        assert_eq!(status["name"], format!("n{}", n + 1), "the node asked answers for itself");
        assert_eq!(status["serving"], true);
        let weights: Vec<_> = status["members"].as_array().unwrap().iter().map(|member| &member["weight"]).collect();
        assert_eq!(weights, [100; 3]);
    }
    assert_eq!(
        dev.run(&["connect-info"]).ok().split('?').nth(1),
        dev.url().split('?').nth(1).map(|ca| format!("{ca}\n")).as_deref()
    );
    assert_eq!(dev.run(&["healthcheck"]).code, Some(0));
}

#[test]
fn keyspaces_are_made_shown_changed_and_dropped() {
    let dev = Dev::start();
    dev.run(&["keyspace", "create", "k", "--conflict", "lww", "--n", "2"]).ok();
    dev.run(&["keyspace", "create", "k", "--conflict", "lww"]).fails("keyspace_exists", 5);
    dev.run(&["put", "k/c/a", "1"]).ok();
    let names = |text: &str| text.lines().map(|line| json_of(line)["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&dev.run(&["keyspace", "list", "--json"]).ok()), ["app", "cache", "k"]);
    dev.run(&["keyspace", "set", "k", "--ttl", "60"]).ok();
    assert_eq!(json_of(&dev.run(&["keyspace", "show", "k", "--json"]).ok())["ttl"], 60);
    dev.run(&["keyspace", "drop", "k"]).ok();
    dev.run(&["get", "k/c/a"]).fails("unknown_keyspace", 3);
    dev.run(&["keyspace", "create", "k", "--conflict", "lww"]).ok();
    dev.run(&["get", "k/c/a"]).fails("not_found", 3);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_silently() {
    let dev = Dev::start();
    let lines: String = (0..20_000).map(|n| format!("{{\"key\":\"{n:05}\",\"value\":{{\"json\":{n}}}}}\n")).collect();
    dev.place.run_with(&["import", "cache"], lines.as_bytes()).ok();
    let mut command = dev.place.command(&["export", "cache"]);
    let mut export = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(export.stdout.as_mut().unwrap(), &mut first).unwrap();
    drop(export.stdout.take());
    let output = export.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
