//! The program, and development clusters of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Done {
    /// Its output, which must be that of a success.
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Must have failed with this code and exit code, saying nothing on standard output.
    #[track_caller]
    pub(super) fn fails(&self, code: &str, exit: i32) {
        assert_eq!(self.code, Some(exit), "{self:?}");
        assert!(self.err.contains(&format!("error[{code}]: ")), "{self:?}");
        assert_eq!(self.out, "", "data of a failure");
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A directory with its own home, where `shoal` runs without anything from around it.
pub(super) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_of(beside("shoal"));
        command.args(arguments);
        command
    }

    pub(super) fn command_of(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHOAL_")) {
            command.env_remove(name);
        }
        command.current_dir(self.directory.path()).env("XDG_STATE_HOME", self.path("state"));
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(super) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // Not every command reads all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.into()
    }
}

/// A development cluster of three in a place of its own. Its processes end with it.
pub(super) struct Dev {
    pub(super) place: Place,
    process: Child,
    /// What it printed when it served.
    pub(super) greeting: Value,
    ports: Ports,
}

impl Dev {
    pub(super) fn start() -> Self {
        Self::start_in(Place::new(), Ports::new())
    }

    pub(super) fn start_in(place: Place, ports: Ports) -> Self {
        let mut command = place.command(&["dev", "--json", "--restart-after", "never", "--port-base"]);
        let command = command.arg(ports.base.to_string());
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut greeting = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let greeting = serde_json::from_str(&greeting).expect("`shoal dev --json` says one line when it serves");
        Self { place, process, greeting, ports }
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Done {
        self.place.run(arguments)
    }

    pub(super) fn url(&self) -> &str {
        self.greeting["url"].as_str().unwrap()
    }

    /// The processes of the nodes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let nodes = self.greeting["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["pid"].as_u64().unwrap().try_into().unwrap()).collect()
    }

    /// `HOST:PORT` of the n-th node, from 0.
    pub(super) fn address(&self, n: usize) -> &str {
        self.greeting["nodes"][n]["address"].as_str().unwrap()
    }

    /// Kills it, but not its nodes: what it leaves.
    pub(super) fn kill(self) -> (Place, Ports) {
        let (_, place, ports) = self.end("-KILL");
        (place, ports)
    }

    /// Ends it as ctrl-C does, and waits for it: how it ended, and what it leaves.
    pub(super) fn interrupt(self) -> (Option<i32>, Place, Ports) {
        self.end("-INT")
    }

    fn end(mut self, by: &str) -> (Option<i32>, Place, Ports) {
        signal(by, self.process.id());
        let code = self.process.wait().unwrap().code();
        let place = std::mem::replace(&mut self.place, Place::new());
        let ports = std::mem::replace(&mut self.ports, Ports::new());
        (code, place, ports)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The nodes see that their parent is gone, once a test that failed no longer makes them stand still.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let pids = self.pids().into_iter().map(|pid| pid.to_string());
        let _ = Command::new("kill").arg("-CONT").args(pids).stderr(Stdio::null()).status();
    }
}

pub(super) fn signal(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Whether a process runs: not whether its parent has taken note of its end.
pub(super) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Three ports in a row, the first of them named, that no other test of this machine uses while this lives.
pub(super) struct Ports {
    pub(super) base: u16,
    _lock: File,
}

impl Ports {
    pub(super) fn new() -> Self {
        let locks = std::env::temp_dir().join("shoal-test-ports");
        std::fs::create_dir_all(&locks).unwrap();
        let is_free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        // Below the ports that systems hand out by themselves.
        let reserved = (20_000..30_000).step_by(3).find_map(|base| {
            let lock = File::create(locks.join(base.to_string())).unwrap();
            (lock.try_lock().is_ok() && (base..base + 3).all(is_free)).then_some(Self { base, _lock: lock })
        });
        reserved.expect("three free ports")
    }
}

/// A program of the same build as this test binary, which lies in `deps/`.
pub(super) fn beside(name: &str) -> PathBuf {
    let programs = std::env::current_exe().unwrap().ancestors().nth(2).map(Path::to_owned).unwrap();
    let program = programs.join(name);
    assert!(program.exists(), "no {}: build the workspace first (cargo build)", program.display());
    program
}
