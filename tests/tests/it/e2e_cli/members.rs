//! Five real processes that find, lose and find each other again, as `shoal members --all` shows it.

use super::servers::{COUNT, Servers};

#[test]
fn five_nodes_of_one_seed_started_together_agree() {
    let servers = Servers::start();
    servers.until_all_agree();
    let table = servers.run(0, &["members", "--all"]).ok();
    for name in Servers::names() {
        assert!(table.contains(&format!("SEEN BY {name}")), "{table}");
    }
    assert_eq!(table.matches("itself").count(), COUNT, "{table}");
    assert_eq!(table.matches("alive").count(), COUNT * (COUNT - 1), "{table}");
    assert!(!table.contains("no link") && !table.contains('?'), "{table}");
    let table = servers.run(2, &["members"]).ok();
    assert_eq!(table.lines().count(), COUNT + 1, "{table}");
}

#[test]
fn a_killed_node_is_noticed_by_all_and_found_again_by_all() {
    let mut servers = Servers::start();
    servers.until_all_agree();
    servers.kill(3);
    servers.until_all_say(3, "down");
    servers.start_again(3);
    servers.until_all_agree();
}

#[test]
fn a_node_that_comes_back_at_another_address_is_found_by_all() {
    let mut servers = Servers::start();
    servers.until_all_agree();
    let was = servers.address(2);
    servers.kill(2);
    servers.move_to_another_port(2);
    assert_ne!(servers.address(2), was);
    servers.start_again(2);
    servers.until_all_find(2);
    servers.until_all_agree();
}

#[test]
fn a_node_that_stood_still_is_suspected_and_taken_back() {
    let servers = Servers::start();
    servers.until_all_agree();
    servers.stand_still(1);
    servers.until_all_say(1, "down");
    servers.go_on(1);
    servers.until_all_agree();
}

#[test]
fn a_node_that_is_stopped_in_good_order_has_left_and_comes_back() {
    let mut servers = Servers::start();
    servers.until_all_agree();
    servers.stop(4);
    servers.until_all_say(4, "left");
    servers.start_again(4);
    servers.until_all_agree();
}
