//! What is refused: one clear error with its code and exit code, and nothing changes.

use std::net::UdpSocket;

use super::program::{Dev, Place, Ports};

const OTHER_CA: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn bad_requests_are_refused_by_their_codes_and_change_nothing() {
    let dev = Dev::start();
    dev.run(&["counter", "add", "app/t/counter"]).ok();
    dev.run(&["counter", "add", "cache/counter"]).ok();
    dev.run(&["get", "nowhere/a/b"]).fails("unknown_keyspace", 3);
    dev.run(&["put", "app/t/counter", "1"]).fails("wrong_type", 5);
    dev.run(&["put", "app/t/counter", "1", "--blind"]).fails("wrong_type", 5);
    dev.run(&["put", "cache/counter", "1"]).fails("wrong_type", 5);
    dev.run(&["set", "add", "app/t/counter", "x"]).fails("wrong_type", 5);
    dev.run(&["counter", "add", "app/t/counter", "--field", "f"]).fails("wrong_type", 5);
    assert_eq!(dev.run(&["get", "app/t/counter"]).ok(), "1\n");
    assert_eq!(dev.run(&["get", "cache/counter"]).ok(), "1\n");

    let big = dev.place.write("big", &"x".repeat((1 << 20) + 1));
    dev.run(&["put", "app/t/big", &format!("@{big}"), "--text"]).fails("limit", 1);
    let deep: Vec<&str> = ["--field", "f"].repeat(9);
    dev.run(&[&["counter", "add", "app/t/deep"], &deep[..]].concat()).fails("limit", 1);
    for n in 0..64 {
        dev.run(&["put", "app/t/siblings", &n.to_string(), "--blind"]).ok();
    }
    dev.run(&["put", "app/t/siblings", "64", "--blind"]).fails("limit", 1);
    dev.run(&["get", "app/t/big"]).fails("not_found", 3);
    dev.run(&["get", "app/t/deep"]).fails("not_found", 3);
    assert_eq!(dev.run(&["get", "app/t/siblings"]).ok().lines().count(), 64);

    dev.run(&["get", "app/t/counter", "--r", "4"]).fails("too_few_nodes", 4);
    dev.run(&["get", "cache/t/k"]).fails("config", 2);
    dev.run(&["keyspace", "create", "_mine", "--conflict", "lww"]).fails("bad_request", 2);
    dev.run(&["scan", "cache/t"]).fails("config", 2);
}

#[test]
fn wrong_usage_has_exit_code_2() {
    let place = Place::new();
    for wrong in [
        &["get"][..],
        &["get", "App/a/b"],
        &["get", "app"],
        &["get", "app//b"],
        &["frobnicate"],
        &["keyspace", "create", "k"],
        &["keyspace", "set", "k"],
        &["keyspace", "create", "Kk", "--conflict", "lww"],
        &["get", "app/a/b", "--timeout", "0"],
    ] {
        let done = place.run(wrong);
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
    }
    let long = format!("app/c/{}", "k".repeat(513));
    assert_eq!(place.run(&["get", &long]).code, Some(2));
    place.run(&["get", "app/a/b"]).fails("config", 2);
    place.run(&["get", "app/a/b", "--url", "http://localhost"]).fails("config", 2);
}

#[test]
fn a_cluster_that_is_not_there_and_one_that_is_another_are_told_apart() {
    let dev = Dev::start();
    let ports = Ports::new();
    let nobody = format!("shoal://127.0.0.1:{}/?ca={OTHER_CA}", ports.base);
    dev.run(&["get", "app/a/b", "--timeout", "1", "--url", &nobody]).fails("connect", 4);
    let another = format!("shoal://{}/?ca={OTHER_CA}", dev.address(0));
    dev.run(&["get", "app/a/b", "--timeout", "1", "--url", &another]).fails("untrusted", 7);
}

#[test]
fn a_port_in_use_stops_a_start_before_it_begins() {
    let (place, ports) = (Place::new(), Ports::new());
    let base = ports.base;
    let _taken = UdpSocket::bind(("127.0.0.1", base + 1)).unwrap();
    let done = place.run(&["dev", "--port-base", &base.to_string()]);
    done.fails("port_in_use", 1);
    assert!(done.err.contains(&(base + 1).to_string()) && done.err.contains("--port-base"), "{done:?}");
    let listen = format!("127.0.0.1:{}", base + 1);
    let server = ["server", "--name", "a", "--data-dir", "data", "--log", "off", "--listen", &listen];
    place.run(&server).fails("port_in_use", 1);
}

#[test]
fn a_servers_configuration_is_checked_without_starting_and_shown_without_secrets() {
    let place = Place::new();
    let secret = "11".repeat(32);
    let file = place.write("secret", &secret);
    let config = place.write("shoal.toml", &format!("data_dir = \"d\"\nname = \"a\"\nsecret_file = \"{file}\"\n"));
    assert_eq!(place.run(&["config", "check", "--config", &config]).ok(), "ok\n");
    let shown = place.run(&["config", "show", "--config", &config, "--weight", "7"]).ok();
    assert!(shown.contains("weight = 7") && !shown.contains(&secret), "{shown}");
    let mut command = place.command(&["config", "show", "--config", &config, "--json"]);
    let shown = command.env("SHOAL_ZONE", "z1").output().unwrap().stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!((&shown["zone"], &shown["name"]), (&"z1".into(), &"a".into()));

    let limited =
        place.write("limited.toml", "data_dir = \"d\"\nname = \"a\"\n[limits]\nrequests_max = 1\nsiblings_max = 2\n");
    let arguments = ["config", "show", "--json", "--config", &limited, "--siblings-max", "4"];
    let mut command = place.command(&arguments);
    let shown = command.env("SHOAL_SIBLINGS_MAX", "3").env("SHOAL_REQUEST_BYTES_MAX", "5").output().unwrap().stdout;
    let limits = &serde_json::from_slice::<serde_json::Value>(&shown).unwrap()["limits"];
    let of = |name: &str| limits[name].as_u64();
    assert_eq!([of("requests_max"), of("siblings_max"), of("request_bytes_max")], [Some(1), Some(4), Some(5)]);
    assert_eq!(of("link_requests_max"), Some(4_096), "what is not set is shown as well");
    place.run(&["config", "check", "--config", &limited, "--map-depth-max", "65"]).fails("config", 2);

    let unknown = place.write("unknown.toml", "data_dir = \"d\"\nname = \"a\"\ncolour = 1\n");
    place.run(&["config", "check", "--config", &unknown]).fails("config", 2);
    place.run(&["config", "check", "--data-dir", "d"]).fails("config", 2);
    let open = ["config", "check", "--data-dir", "d", "--name", "a", "--listen", "0.0.0.0:7400"];
    place.run(&open).fails("config", 2);
    let wrong_secret = place.write("wrong", "not a secret");
    let wrong = place.run(&["config", "check", "--data-dir", "d", "--name", "a", "--secret-file", &wrong_secret]);
    wrong.fails("config", 2);
    assert!(!wrong.err.contains("not a secret"), "{wrong:?}");
}

#[test]
fn the_data_of_another_node_is_left_alone() {
    let dev = Dev::start();
    let data = dev.place.path("shoal-dev/n1");
    let ports = Ports::new();
    let listen = format!("127.0.0.1:{}", ports.base);
    let data = data.to_str().unwrap();
    let server = ["server", "--name", "other", "--data-dir", data, "--log", "off", "--listen", &listen];
    dev.run(&server).fails("data_dir", 1);
    let (_, place, _) = dev.interrupt();
    let refused = place.run(&server);
    refused.fails("data_dir", 1);
    assert!(refused.err.contains("belongs to node"), "{refused:?}");
}
