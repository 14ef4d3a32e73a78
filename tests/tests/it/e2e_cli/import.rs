//! Import and export: nothing is counted twice, nothing gets lost on the way round.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use super::program::{Dev, signal};

/// Records of every type, two of which are not UTF-8.
fn records() -> String {
    let mut lines = String::new();
    for n in 0..300 {
        writeln!(lines, r#"{{"collection":"c{}","key":"r{n}","value":{{"json":{{"b":{n},"a":1.50}}}}}}"#, n % 3)
            .unwrap();
        writeln!(lines, r#"{{"collection":"n","key":"{n}","type":"counter","value":{}}}"#, n - 5).unwrap();
    }
    lines.push_str(concat!(
        r#"{"collection":"t","key":"siblings","values":[{"json":1},{"base64":"aGk=","content_type":"text/plain"}]}"#,
        "\n",
        r#"{"collection":"t","key":"later","values":[{"json":null,"expires_at":32503680000000}]}"#,
        "\n",
        r#"{"collection":"t","key":"flag","type":"flag","value":true}"#,
        "\n",
        r#"{"collection":{"base64":"/w=="},"key":{"base64":"/g=="},"type":"set","value":{"json":["a",-1,{"base64":"AP8="}]}}"#,
        "\n",
        r#"{"collection":"t","key":"map","type":"map","value":{"n":{"type":"counter","value":3},"m":{"type":"counter","value":0},"r":{"values":[{"json":"x"}]}}}"#,
        "\n",
    ));
    lines
}

fn sorted(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn an_export_imported_into_a_new_keyspace_is_exported_again_as_the_same() {
    let dev = Dev::start();
    let file = dev.place.write("records.ndjson", &records());
    dev.run(&["import", "app", &file]).ok();
    let first = dev.run(&["export", "app"]).ok();
    assert_eq!(first.lines().count(), 605);
    dev.run(&["keyspace", "create", "copy", "--conflict", "siblings"]).ok();
    dev.place.run_with(&["import", "copy"], first.as_bytes()).ok();
    let second = dev.place.path("second.ndjson");
    dev.run(&["--via", dev.address(1), "export", "copy", "--output", second.to_str().unwrap()]).ok();
    let second = std::fs::read_to_string(second).unwrap();
    assert_eq!(sorted(&first), sorted(&second));
    assert!(!dev.place.path("second.ndjson.resume").exists());
}

#[test]
fn the_same_file_imported_again_counts_nothing_twice() {
    let dev = Dev::start();
    let file = dev.place.write("records.ndjson", &records());
    dev.run(&["import", "app", &file]).ok();
    let once = dev.run(&["export", "app"]).ok();
    dev.run(&["counter", "add", "app/n/100", "1000"]).ok();
    dev.run(&["import", "app", &file]).ok();
    assert_eq!(dev.run(&["counter", "get", "app/n/100"]).ok(), "1095\n", "what others add stays");
    dev.run(&["counter", "add", "app/n/100", "-1000"]).ok();
    let twice = dev.run(&["export", "app"]).ok();
    assert_eq!(sorted(&once), sorted(&twice));
}

#[test]
fn the_same_content_counts_once_whether_it_comes_as_a_file_or_as_a_stream() {
    let dev = Dev::start();
    let text = "{\"collection\":\"n\",\"key\":\"a\",\"type\":\"counter\",\"value\":7}\n";
    let a = || dev.run(&["counter", "get", "app/n/a"]).ok();
    for _ in 0..2 {
        let done = dev.place.run_with(&["import", "app"], text.as_bytes());
        assert!(done.err.contains("imported 1 records"), "{done:?}");
        done.ok();
        assert_eq!(a(), "7\n");
    }
    let file = dev.place.write("one.ndjson", text);
    dev.run(&["import", "app", &file]).ok();
    assert_eq!(a(), "7\n", "the file has the stream's content");

    let longer = format!("{text}\n{text}");
    dev.place.run_with(&["import", "app", "-"], longer.as_bytes()).ok();
    assert_eq!(a(), "21\n", "another content, two of whose lines say the same");
    let other = ["import", "app", "--collection", "m"];
    dev.place.run_with(&other, text.as_bytes()).ok();
    assert_eq!(a(), "28\n", "into another place");
    for _ in 0..2 {
        dev.place.run_with(&["import", "app", "--resume", "mine"], text.as_bytes()).ok();
        assert_eq!(a(), "35\n", "another memory");
    }
    let kept = std::fs::read_dir(dev.place.path("state/shoal/imports")).unwrap().count();
    assert_eq!(kept, 3, "memories of imports only, no content");
}

#[test]
fn a_killed_import_of_a_stream_goes_on_and_counts_nothing_twice() {
    let dev = Dev::start();
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"collection\":\"n\",\"key\":\"{n}\",\"type\":\"counter\",\"value\":7}}\n"))
        .collect();
    let mut command = dev.place.command(&["import", "app"]);
    let mut import = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    while dev.run(&["count", "app/n"]).ok().trim().parse::<u32>().unwrap() < 500 {
        assert!(import.try_wait().unwrap().is_none(), "it ended before it could be killed");
    }
    signal("-KILL", import.id());
    import.wait().unwrap();

    let again = dev.place.run_with(&["import", "app"], lines.as_bytes());
    assert!(again.err.contains("going on behind line "), "{again:?}");
    again.ok();
    let values = dev.run(&["scan", "app/n"]).ok();
    assert_eq!(values.lines().count(), 20_000);
    let wrong: Vec<_> = values.lines().filter(|line| !line.ends_with("\t7")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_killed_import_goes_on_and_counts_nothing_twice() {
    let dev = Dev::start();
    let lines: String =
        (0..20_000).map(|n| format!("{{\"key\":\"{n}\",\"type\":\"counter\",\"value\":7}}\n")).collect();
    let file = dev.place.write("counters.ndjson", &lines);
    let arguments = ["import", "app", &file, "--collection", "n", "--resume", "state.import"];
    let mut import = dev.place.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
    while dev.run(&["count", "app/n"]).ok().trim().parse::<u32>().unwrap() < 500 {
        assert!(import.try_wait().unwrap().is_none(), "it ended before it could be killed");
    }
    signal("-KILL", import.id());
    import.wait().unwrap();

    let again = dev.run(&arguments);
    assert!(again.err.contains("going on behind line "), "{again:?}");
    again.ok();
    let values = dev.run(&["scan", "app/n"]).ok();
    assert_eq!(values.lines().count(), 20_000);
    let wrong: Vec<_> = values.lines().filter(|line| !line.ends_with("\t7")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn bad_lines_are_named_by_number_and_the_good_ones_are_imported() {
    let dev = Dev::start();
    dev.run(&["counter", "add", "app/c/taken"]).ok();
    let lines = [
        r#"{"collection":"c","key":"good","value":{"json":1}}"#,
        "no record",
        r#"{"key":"no collection","value":{"json":1}}"#,
        r#"{"collection":"c","key":"taken","value":{"json":1}}"#,
        &format!(r#"{{"collection":"c","key":"{}","value":{{"json":1}}}}"#, "k".repeat(513)),
        r#"{"collection":"c","key":"good too","value":{"json":1}}"#,
    ]
    .join("\n");
    let file = dev.place.write("lines.ndjson", &lines);
    let done = dev.run(&["import", "app", &file]);
    done.fails("import", 1);
    let said = |line: &str, what: &str| done.err.lines().any(|said| said.starts_with(line) && said.contains(what));
    assert!(said("line 2: ", "expected"), "{}", done.err);
    assert!(said("line 3: ", "error[config]"), "{}", done.err);
    assert!(said("line 4: ", "error[wrong_type]"), "{}", done.err);
    assert!(said("line 5: ", "513 bytes"), "{}", done.err);
    assert!(done.err.contains("4 of 6 lines were not imported"), "{}", done.err);
    assert_eq!(dev.run(&["scan", "app/c"]).ok(), "good\t1\ngood too\t1\ntaken\t1\n".replace("good too", "good%20too"));

    let strict = dev.run(&["import", "cache", &file, "--strict"]);
    strict.fails("import", 1);
    assert!(strict.err.contains("line 1 was not imported") && !strict.err.contains("line 2"), "{}", strict.err);
}
