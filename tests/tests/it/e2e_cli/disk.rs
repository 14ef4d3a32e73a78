//! A disk that fills up, and looking into what a node left.
//!
//! The disk is a real file system of its own: a tmpfs in a mount namespace, which needs util-linux and a kernel that lets
//! users have namespaces (any of the last ten years), and takes no O_DIRECT, so the log is synced there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::program::{Dev, Done, Place, Ports, beside};

const MIB: u64 = 1 << 20;

/// A node alone whose data directory is a tmpfs of 48 MiB.
struct Small {
    place: Place,
    server: Child,
    url: String,
    /// The file system, as seen from here.
    disk: PathBuf,
    _ports: Ports,
}

impl Small {
    fn start() -> Self {
        let (place, ports) = (Place::new(), Ports::new());
        let listen = format!("127.0.0.1:{}", ports.base);
        let mount = place.path("disk");
        fs::create_dir(&mount).unwrap();
        let data = mount.join("data");
        let settings = ["--data-dir", data.to_str().unwrap(), "--name", "a", "--listen", &listen];
        let url = place.run(&[&["connect-info"], &settings[..]].concat()).ok().trim().to_owned();
        let mut command = place.command_of("unshare".into());
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.arg("mount -t tmpfs -o size=48m tmpfs \"$0\" && echo mounted && exec \"$@\"").arg(&mount);
        command.arg(beside("shoal")).arg("server").args(settings);
        command.args(["--expect", "1", "--found-alone", "--until-stdin-closes"]);
        for (flag, mib) in [
            ("--log-segment-bytes", 1),
            ("--log-bytes-max", 8),
            ("--memory-bytes-max", 8),
            ("--disk-reserve-bytes", 16),
        ] {
            command.args([flag, &(mib * MIB).to_string()]);
        }
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "a tmpfs in a namespace of its own");
        let disk = PathBuf::from(format!("/proc/{}/root", server.id())).join(mount.strip_prefix("/").unwrap());
        let small = Self { place, server, url, disk, _ports: ports };
        while small.run(&["healthcheck"]).code != Some(0) {
            std::thread::yield_now();
        }
        small.run(&["keyspace", "create", "app", "--conflict", "siblings"]).ok();
        small
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.place.run(&[&["--url", &self.url], arguments].concat())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Closes its standard input, upon which it stops in good order.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

#[test]
fn a_disk_that_fills_up_refuses_writes_and_serves_reads_and_deletes_and_takes_writes_again_when_there_is_room() {
    let small = Small::start();
    let value = format!("\"{}\"", "x".repeat(100_000));
    small.run(&["put", "app/files/first", &value]).ok();
    // Somebody else fills the disk, all but some room for the reserve's own use.
    let filler = small.disk.join("filler");
    fs::write(&filler, vec![1; 28 << 20]).unwrap();
    let mut written = vec!["first".to_owned()];
    let refused = loop {
        let key = format!("{:03}", written.len());
        let put = small.run(&["put", &format!("app/files/{key}"), &value]);
        if put.code != Some(0) {
            break put;
        }
        written.push(key);
        assert!(written.len() < 1_000, "48 MiB never fill up");
    };
    refused.fails("disk_full", 4);
    let status = small.run(&["status"]);
    assert!(format!("{status:?}").contains("disk is"), "{status:?}");
    for key in &written {
        assert_eq!(small.run(&["get", &format!("app/files/{key}")]).ok(), format!("{value}\n"));
    }
    small.run(&["del", "app/files/first"]).ok();
    small.run(&["get", "app/files/first"]).fails("not_found", 3);
    fs::remove_file(&filler).unwrap();
    while small.run(&["put", "app/files/again", "1"]).code != Some(0) {
        std::thread::yield_now();
    }
    assert_eq!(small.run(&["count", "app/files"]).ok(), format!("{}\n", written.len()));
}

#[test]
fn what_a_stopped_node_left_is_counted_and_checked_and_damage_is_named() {
    let dev = Dev::start();
    for n in 0..20 {
        dev.run(&["put", &format!("app/users/{n:02}"), "\"something to look for\""]).ok();
    }
    let data = dev.place.path("shoal-dev/n1");
    let data = data.to_str().unwrap().to_owned();
    dev.run(&["store", "inspect", &data]).fails("data_dir", 1);
    let (_, place, _ports) = dev.interrupt();

    let inspected: Value = serde_json::from_str(&place.run(&["store", "inspect", &data, "--json"]).ok()).unwrap();
    // Comparing replicas brought some of them into the rows perhaps.
    let store = &inspected["stores"][0];
    let (records, rows) = (store["log"]["records"].as_u64().unwrap(), store["rows"].as_u64().unwrap());
    assert_eq!(records + rows, 20, "{inspected}");
    let printed = place.run(&["store", "inspect", &data]).ok();
    assert!(printed.contains("rows.redb") && printed.contains("log-000001"), "{printed}");
    assert!(place.run(&["store", "verify", &data]).ok().contains(&format!("{records} records, 0 places damaged")));
    place.run(&["store", "verify", "nowhere"]).fails("io", 1);

    // What the log does not need any more is not looked at.
    let (file, said) = if records > 0 { ("log-000001", "log-000001 is damaged") } else { ("rows.redb", "damaged") };
    let path = place.path(&format!("shoal-dev/n1/{file}"));
    let mut bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = (0..bytes.len() - 9).filter(|at| &bytes[*at..at + 9] == b"something").collect();
    let first_needed = found.len() - usize::try_from(records).unwrap();
    let spoiled = if records > 0 { vec![found[first_needed]] } else { found };
    spoiled.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&path, bytes).unwrap();
    let verified = place.run(&["store", "verify", &data]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.err.contains("error[damaged]: ") && verified.err.contains(said), "{verified:?}");
}
