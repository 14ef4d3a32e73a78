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
    let mut dev = Dev::start();
    let pids = dev.pids();
    assert!(pids.iter().all(|pid| runs(*pid)));
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    while pids.iter().any(|pid| runs(*pid)) {
        std::thread::yield_now();
    }
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
