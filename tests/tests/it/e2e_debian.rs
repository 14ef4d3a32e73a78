//! The main job on real input: Debian's package list through a cluster of real processes.
//!
//! Some 60,000 records go in twice, as plain keys and as one collection; they are read back through another node and
//! compared record by record. Then they go in a third time while one node is killed with SIGKILL: nothing acknowledged is
//! lost, and once the node is back and the keys were read, each of the three replicas alone shows the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

type Records = BTreeMap<(String, String), String>;

struct Dev {
    child: Child,
    directory: tempfile::TempDir,
    urls: String,
}

impl Dev {
    /// Starts `shoal dev` and waits until it says that it serves.
    fn start(port_base: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = shoal();
        command.current_dir(directory.path()).args(["dev", "--restart-after", "1", "--port-base"]);
        let mut child = command
            .arg(port_base.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = |line: String| line.split_whitespace().find(|word| word.starts_with("shoal://")).map(String::from);
        let urls = lines.map_while(Result::ok).find_map(url).expect("`shoal dev` prints the URL when it serves");
        Self { child, directory, urls }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = shoal();
        command.current_dir(self.directory.path()).env("SHOAL_URL", &self.urls).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "shoal {arguments:?}: {} {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The address of the n-th node, counted from 0.
    fn node(&self, n: usize) -> String {
        let hosts = self.urls.trim_start_matches("shoal://").split('/').next().unwrap();
        hosts.split(',').nth(n).unwrap().to_owned()
    }

    /// Everything of a keyspace, asked of one node.
    fn export(&self, keyspace: &str, node: usize, r: &str) -> Records {
        let file = self.path(&format!("{keyspace}-{node}-{r}.ndjson"));
        let (via, path) = (self.node(node), file.to_str().unwrap());
        self.run(&["--via", &via, "export", keyspace, "--r", r, "--output", path]);
        records(&file)
    }

    /// The process that listens as the n-th node.
    fn pid(&self, n: usize) -> u32 {
        let listen = self.node(n);
        let is_node = |pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = arguments.split(|byte| *byte == 0).collect();
            words.contains(&&b"server"[..]) && words.contains(&listen.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != self.child.id()).find(is_node).expect("the node runs")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The nodes end when they see that their parent is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shoal() -> Command {
    // The test binary lies in `deps/` beside the programs of the same build.
    let programs = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    Command::new(programs.join("shoal"))
}

fn packages(arguments: &[&str], to: &Path) -> Records {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/debian-packages");
    let file = fs::File::create(to).unwrap();
    let status = Command::new(script).args(arguments).stdout(file).status().unwrap();
    assert!(status.success(), "debian-packages: {status}");
    records(to)
}

fn records(file: &Path) -> Records {
    let read = |line: String| {
        let record: Value = serde_json::from_str(&line).unwrap();
        let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
        let value = match &record["values"] {
            Value::Array(values) => {
                assert_eq!(values.len(), 1, "one value, no siblings: {line}");
                values[0]["json"].to_string()
            }
            _ => record["value"]["json"].to_string(),
        };
        ((text("collection"), text("key")), value)
    };
    BufReader::new(fs::File::open(file).unwrap()).lines().map(|line| read(line.unwrap())).collect()
}

#[test]
fn debians_package_list_survives_two_imports_and_a_killed_node() {
    let dev = Dev::start(7_470);
    let (plain, collected) = (dev.path("plain.ndjson"), dev.path("collection.ndjson"));
    let keys = packages(&["--plain"], &plain);
    let rows = packages(&["--collection", "packages"], &collected);
    assert!(keys.len() >= 50_000 && keys.len() == rows.len());

    dev.run(&["--via", &dev.node(0), "import", "cache", plain.to_str().unwrap()]);
    assert!(dev.export("cache", 1, "2") == keys, "plain keys differ");
    dev.run(&["--via", &dev.node(1), "import", "app", collected.to_str().unwrap()]);
    assert!(dev.export("app", 2, "2") == rows, "the collection differs");

    // A third time, into a keyspace of its own, while a node dies in the middle.
    dev.run(&["keyspace", "create", "again", "--conflict", "siblings"]);
    let mut import = dev.command(&["import", "again", collected.to_str().unwrap()]).spawn().unwrap();
    let arrived = || -> usize { dev.run(&["count", "again/packages"]).trim().parse().unwrap() };
    while arrived() < rows.len() / 4 {
        assert!(import.try_wait().unwrap().is_none(), "the import ended before the node could be killed");
    }
    let (victim, listen) = (dev.pid(2), dev.node(2));
    assert!(Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap().success());
    assert!(import.wait().unwrap().success(), "every record of the import is acknowledged");
    assert!(dev.export("again", 0, "2") == rows, "what was acknowledged is there");

    // The node is back: read every key from all three, then ask each replica alone.
    while !dev.command(&["--via", &listen, "healthcheck"]).output().unwrap().status.success() {}
    while dev.command(&["export", "again", "--r", "3"]).stdout(Stdio::null()).status().unwrap().code() == Some(4) {}
    for node in 0..3 {
        let alone = dev.export("again", node, "1");
        assert!(alone == rows, "node {node} has {} of {} records", alone.len(), rows.len());
    }
}
