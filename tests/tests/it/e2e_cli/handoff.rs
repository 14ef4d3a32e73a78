//! A node that was away gets what it missed, as five real processes show it: by debts, by hints, and without anybody reading.

use serde_json::Value;

use super::servers::{COUNT, Servers};

/// The indexes of the nodes that hold a key.
fn holders(servers: &Servers, key: &str) -> Vec<usize> {
    let located: Value = serde_json::from_str(&servers.run(0, &["--json", "locate", key]).ok()).unwrap();
    let text = located.to_string();
    let names: Vec<String> = Servers::names().collect();
    (0..COUNT).filter(|index| text.contains(&format!("\"{}\"", names[*index]))).collect()
}

/// A key whose holders are not asked for seeds: the first node stays.
fn key_without_the_seed(servers: &Servers) -> (String, Vec<usize>) {
    let mut keys = (0..).map(|number| format!("app/room-{number}/key"));
    let found = keys.find_map(|key| Some((key.clone(), holders(servers, &key))).filter(|(_, held)| !held.contains(&0)));
    found.expect("some keys are not at the first of five nodes")
}

/// What a node shows when it asks nobody but itself.
fn own(servers: &Servers, index: usize, key: &str) -> String {
    loop {
        let done = servers.run(index, &["get", "--r", "1", key]);
        if done.code == Some(0) {
            return done.out;
        }
    }
}

#[test]
fn what_a_node_missed_while_it_was_away_it_has_when_it_is_back_though_nobody_reads_it() {
    let mut servers = Servers::start();
    servers.until_all_agree();
    servers.run(0, &["keyspace", "create", "app", "--conflict", "siblings"]).ok();
    let (key, held) = key_without_the_seed(&servers);
    servers.kill(held[0]);
    servers.until_all_say(held[0], "down");
    // Two of three acknowledge; the third is owed it.
    let written: Value =
        serde_json::from_str(&servers.run(0, &["--json", "put", "--blind", &key, "\"one\""]).ok()).unwrap();
    assert_eq!((&written["acks"], &written["fallbacks"]), (&2.into(), &0.into()), "{written}");
    // With one of three left a strict write is not acknowledged, a sloppy one is, and says so.
    servers.kill(held[1]);
    servers.until_all_say(held[1], "down");
    servers.run(0, &["--timeout", "2", "put", "--blind", &key, "\"strict\""]).fails("unavailable", 4);
    let sloppy = servers.run(0, &["--json", "put", "--blind", "--sloppy", &key, "\"two\""]).ok();
    let written: Value = serde_json::from_str(&sloppy).unwrap();
    assert_eq!((&written["acks"], &written["fallbacks"]), (&2.into(), &1.into()), "{written}");
    servers.start_again(held[0]);
    servers.start_again(held[1]);
    servers.until_all_agree();
    for index in &held[..2] {
        while !(own(&servers, *index, &key).contains("two") && own(&servers, *index, &key).contains("one")) {}
    }
    // And then nobody keeps anything for anybody.
    let figure = |index: usize, name: &str| {
        let status: Value = serde_json::from_str(&servers.run(index, &["--json", "status"]).ok()).unwrap();
        status["figures"][name].as_u64().unwrap()
    };
    while (0..COUNT).any(|index| figure(index, "hints_pending") + figure(index, "debts") > 0) {}
}
