//! Real processes that join, leave and lose their data while a client works: nothing fails, nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::servers::Servers;

/// Goes on adding to a counter and a set, through one node, until told to stop; how often by then.
fn work(servers: &Servers, mut count: u64, stop: &AtomicBool) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        servers.run(0, &["counter", "add", "app/load/count", "1"]).ok();
        servers.run(0, &["set", "add", "app/load/all", &count.to_string()]).ok();
        count += 1;
    }
    count
}

#[test]
fn a_cluster_grows_heals_and_shrinks_under_work_and_loses_nothing() {
    let mut servers = Servers::start_first(3);
    servers.until_held_by(&[0, 1, 2]);
    servers.run(0, &["keyspace", "create", "app", "--conflict", "siblings"]).ok();
    for key in 0..40 {
        servers.run(key % 3, &["put", &format!("app/c{key}/k"), &key.to_string()]).ok();
    }
    let stop = AtomicBool::new(false);
    let mut done = 0;
    let mut while_working = |change: &mut dyn FnMut(&mut Servers), holders: &[usize]| {
        stop.store(false, Ordering::Relaxed);
        change(&mut servers);
        let (servers, stop, before) = (&servers, &stop, done);
        done = thread::scope(|scope| {
            let worker = scope.spawn(move || work(servers, before, stop));
            servers.until_held_by(holders);
            stop.store(true, Ordering::Relaxed);
            worker.join().unwrap()
        });
    };
    // Two newcomers at once.
    while_working(
        &mut |servers| {
            servers.start_again(3);
            servers.start_again(4);
        },
        &[0, 1, 2, 3, 4],
    );
    // One that lost everything fills itself again, with no command.
    while_working(
        &mut |servers| {
            servers.kill(1);
            servers.wipe(1);
            servers.start_again(1);
        },
        &[0, 1, 2, 3, 4],
    );
    // Two leave.
    while_working(
        &mut |servers| {
            servers.run(0, &["cluster", "leave", "node4"]).ok();
            servers.run(1, &["cluster", "leave", "node2"]).ok();
        },
        &[0, 1, 3],
    );
    servers.stop(4);
    servers.stop(2);
    assert_eq!(servers.run(3, &["counter", "get", "app/load/count"]).ok().trim(), done.to_string());
    let all = servers.run(1, &["set", "get", "app/load/all"]).ok();
    assert_eq!(all.lines().count() as u64, done, "{all}");
    for key in 0..40 {
        assert_eq!(servers.run(1, &["get", &format!("app/c{key}/k")]).ok().trim(), key.to_string());
    }
    let refused = servers.run(0, &["cluster", "remove", "node1"]);
    refused.fails("layout_refused", 5);
    assert!(servers.run(0, &["cluster", "status"]).ok().contains("node3"));
}
