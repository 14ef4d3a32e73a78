//! The life of a development cluster: it starts, serves, stops, dies and comes back, and leaves nothing running.

use super::program::{Dev, runs, signal};

#[test]
fn after_ctrl_c_nothing_runs_nothing_is_lost_and_the_same_directory_starts_again() {
    let dev = Dev::start();
    dev.run(&["put", "app/users/ada", "1"]).ok();
    let (url, pids) = (dev.url().to_owned(), dev.pids());
    let (code, place, ports) = dev.interrupt();
    assert_eq!(code, Some(0));
    assert!(!pids.iter().any(|pid| runs(*pid)), "a node outlives its cluster");
    assert!(!place.path("shoal-dev/connect-info").exists());
    place.run(&["get", "app/users/ada"]).fails("config", 2);

    let dev = Dev::start_in(place, ports);
    assert_eq!(dev.url(), url, "the same secret, the same certificate authority");
    assert_eq!(dev.run(&["get", "app/users/ada"]).ok(), "1\n");
}

#[test]
fn nodes_end_when_their_parent_is_killed() {
    let dev = Dev::start();
    dev.run(&["put", "app/users/ada", "1"]).ok();
    let pids = dev.pids();
    assert!(pids.iter().all(|pid| runs(*pid)));
    let (place, ports) = dev.kill();
    while pids.iter().any(|pid| runs(*pid)) {
        std::thread::yield_now();
    }
    let dev = Dev::start_in(place, ports);
    assert_eq!(dev.run(&["get", "app/users/ada"]).ok(), "1\n");
}

#[test]
fn a_cluster_whose_parent_was_killed_starts_again_at_once() {
    let (place, ports) = Dev::start().kill();
    let dev = Dev::start_in(place, ports);
    assert_eq!(dev.run(&["count", "app"]).ok(), "0\n");
}

#[test]
fn what_was_unknown_is_repeated_and_counts_once() {
    let dev = Dev::start();
    dev.run(&["counter", "add", "app/t/n", "10"]).ok();
    let pids = dev.pids();
    // Two nodes stand still: the third keeps the operation, and nobody confirms it.
    pids[1..].iter().for_each(|pid| signal("-STOP", *pid));
    let arguments = ["--via", dev.address(0), "--timeout", "1", "counter", "add", "app/t/n", "5"];
    let unknown = dev.run(&arguments);
    unknown.fails("unknown", 6);
    assert!(unknown.err.contains("shoal repeat"), "{unknown:?}");
    dev.run(&["--via", dev.address(0), "--timeout", "1", "repeat"]).fails("unknown", 6);
    pids[1..].iter().for_each(|pid| signal("-CONT", *pid));
    dev.run(&["repeat"]).ok();
    assert_eq!(dev.run(&["counter", "get", "app/t/n"]).ok(), "15\n");
    dev.run(&["repeat"]).ok();
    assert_eq!(dev.run(&["counter", "get", "app/t/n"]).ok(), "15\n");
}

#[test]
fn two_of_three_nodes_serve_and_one_does_not() {
    let dev = Dev::start();
    dev.run(&["put", "app/users/ada", "1"]).ok();
    let pids = dev.pids();
    signal("-KILL", pids[0]);
    assert_eq!(dev.run(&["get", "app/users/ada"]).ok(), "1\n");
    dev.run(&["put", "app/users/ada", "2"]).ok();
    assert_eq!(dev.run(&["get", "app/users/ada"]).ok(), "2\n");
    signal("-KILL", pids[1]);
    let alone = dev.run(&["--via", dev.address(2), "--timeout", "2", "put", "app/users/ada", "3"]);
    assert!(matches!(alone.code, Some(4 | 6)), "{alone:?}");
}

#[test]
fn the_same_directory_takes_one_cluster_of_one_size() {
    let dev = Dev::start();
    dev.run(&["dev", "--port-base", "1"]).fails("data_dir", 1);
    let (_, place, _) = dev.interrupt();
    place.run(&["dev", "--nodes", "5"]).fails("config", 2);
}
