//! The examples of the native client, run as their first lines say, against a development cluster.

use super::program::{Dev, Done, beside};

/// What each prints the first time.
const FIRST: [(&str, &str); 6] = [
    ("quickstart", "siblings: [\"London\", \"Turin\"]\nmerged: Some(\"London, Turin\")\nvisits: 1\n"),
    (
        "register",
        "profile: Some(Profile { name: \"Ada\", age: 36 })\n\
         a year later: Some(Profile { name: \"Ada\", age: 37 })\n\
         page: Some(\"<h1>hello</h1>\")\n\
         deleted: true\n",
    ),
    ("set", "apples in it: true\nbasket: {Text(\"apples\"), Int(7)}\n"),
    ("counter", "likes: 2\n"),
    ("flag", "dark mode: true\ndark mode: false\n"),
    ("map", "fields: [\"members\", \"messages\", \"settings\", \"topic\"]\nmembers: {Text(\"ada\")}\nmessages: 2\n"),
];

fn run(dev: &Dev, example: &str, url: Option<&str>) -> Done {
    let mut command = dev.place.command_of(beside(&format!("examples/{example}")));
    command.envs(url.map(|url| ("SHOAL_URL", url))).output().unwrap().into()
}

#[test]
fn every_example_runs_and_prints_what_it_should() {
    let dev = Dev::start();
    let there = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../client-rs/examples")).unwrap();
    assert_eq!(there.count(), FIRST.len(), "an example that nobody runs");
    for (example, printed) in FIRST {
        assert_eq!(run(&dev, example, Some(dev.url())).ok(), printed, "{example}");
    }
    // Whoever tries it twice sees that data stays.
    assert!(run(&dev, "quickstart", Some(dev.url())).ok().ends_with("visits: 2\n"));
    assert!(run(&dev, "map", Some(dev.url())).ok().ends_with("messages: 4\n"));
    let lost = run(&dev, "counter", None);
    assert!(lost.code == Some(1) && lost.err.contains("SHOAL_URL"), "{lost:?}");
}
