//! Five servers of one cluster, each a process of its own, as an operator starts them.

use std::process::{Child, Stdio};

use serde_json::Value;

use super::program::{Done, Place, Ports, signal};

/// How many there are.
pub(super) const COUNT: usize = 5;

/// Five processes of `shoal server`, whose only seed is the first. They end with it.
pub(super) struct Servers {
    place: Place,
    ports: [Ports; 2],
    /// Which port each has; the last is free.
    port_of: [usize; COUNT],
    processes: Vec<Option<Child>>,
    /// How many form the cluster.
    expect: usize,
}

impl Servers {
    /// Starts all at the same time.
    pub(super) fn start() -> Self {
        Self::start_first(COUNT)
    }

    /// Starts the first of them at the same time, which form the cluster; the others may come later.
    pub(super) fn start_first(expect: usize) -> Self {
        let place = Place::new();
        place.write("secret", &"07".repeat(32));
        let ports = [Ports::new(), Ports::new()];
        let mut servers =
            Self { place, ports, port_of: std::array::from_fn(|index| index), processes: Vec::new(), expect };
        servers.processes = (0..COUNT).map(|index| (index < expect).then(|| servers.process(index))).collect();
        servers
    }

    pub(super) fn names() -> impl Iterator<Item = String> {
        (0..COUNT).map(name)
    }

    /// Runs a command against one of them.
    pub(super) fn run(&self, index: usize, arguments: &[&str]) -> Done {
        // Written when it was started: others read it at this moment.
        let config = self.place.path(&format!("{}.toml", name(index)));
        let config = config.to_str().unwrap();
        let url = self.place.run(&["connect-info", "--config", config]).ok();
        self.place.run(&[&["--url", url.trim()], arguments].concat())
    }

    pub(super) fn address(&self, index: usize) -> String {
        self.address_at(self.port_of[index])
    }

    pub(super) fn kill(&mut self, index: usize) {
        let mut process = self.processes[index].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Stops it as an operator does, and waits for it.
    pub(super) fn stop(&mut self, index: usize) {
        let mut process = self.processes[index].take().unwrap();
        signal("-TERM", process.id());
        assert!(process.wait().unwrap().success());
    }

    /// A killed node loses everything it had.
    pub(super) fn wipe(&self, index: usize) {
        std::fs::remove_dir_all(self.place.path(&name(index))).unwrap();
    }

    /// Waits until every running node says that exactly these hold data, all of it, under one layout.
    pub(super) fn until_held_by(&self, holders: &[usize]) {
        let mut wanted: Vec<String> = holders.iter().copied().map(name).collect();
        wanted.sort();
        let mut last = String::new();
        while let Err(seen) = (0..COUNT).filter(|index| self.processes[*index].is_some()).try_for_each(|index| {
            let (layouts, members) = (self.ask(index, &["cluster", "status"])?, self.ask(index, &["members"])?);
            let holds = |node: &&Value| node["role"]["state"] == "active";
            let nodes = layouts["nodes"].as_array().ok_or("no nodes")?.iter();
            let mut found: Vec<String> =
                nodes.filter(holds).map(|node| node["name"].to_string().replace('"', "")).collect();
            found.sort();
            let is_one = layouts["active"].as_array().is_some_and(|active| active.len() == 1);
            let is_synced = members.as_array().is_some_and(|all| all.iter().all(|m| m["catching_up"] == false));
            if found == wanted && is_one && is_synced { Ok(()) } else { Err(format!("{layouts} {members}")) }
        }) {
            if seen != last {
                println!("waiting until {wanted:?} hold everything: {seen}");
                last = seen;
            }
        }
    }

    /// What a node answers, as JSON.
    fn ask(&self, index: usize, arguments: &[&str]) -> Result<Value, String> {
        let done = self.run(index, &[&["--json", "--timeout", "2"], arguments].concat());
        if done.code != Some(0) {
            return Err(done.err);
        }
        serde_json::from_str(&done.out).map_err(|error| error.to_string())
    }

    pub(super) fn stand_still(&self, index: usize) {
        signal("-STOP", self.processes[index].as_ref().unwrap().id());
    }

    pub(super) fn go_on(&self, index: usize) {
        signal("-CONT", self.processes[index].as_ref().unwrap().id());
    }

    pub(super) fn start_again(&mut self, index: usize) {
        let process = self.process(index);
        self.processes[index] = Some(process);
    }

    /// To the port that nobody has.
    pub(super) fn move_to_another_port(&mut self, index: usize) {
        self.port_of[index] = COUNT;
    }

    /// Waits until every node says of every other that it is alive, and can ask it.
    pub(super) fn until_all_agree(&self) {
        self.until("all agree", |_, seen| seen["state"] == "alive" && seen["linked"] == true);
    }

    /// Waits until all others say this of one.
    pub(super) fn until_all_say(&self, index: usize, state: &str) {
        let is_so =
            |viewer: &str, seen: &Value| viewer == name(index) || seen["name"] != name(index) || seen["state"] == state;
        self.until(&format!("{} is {state}", name(index)), is_so);
    }

    /// Waits until all others know where one is now, and can ask it there.
    pub(super) fn until_all_find(&self, index: usize) {
        let address = serde_json::json!([self.address(index)]);
        self.until(&format!("{} is found", name(index)), |_, seen| {
            seen["name"] != name(index) || (seen["addresses"] == address && seen["linked"] == true)
        });
    }

    /// Waits until `is_so` of what each running node says of each member. A condition that never comes is ended by the test
    /// runner, which prints what was seen last.
    fn until(&self, what: &str, is_so: impl Fn(&str, &Value) -> bool) {
        let mut last = String::new();
        loop {
            let Err(seen) = self.look(&is_so) else { return };
            if seen != last {
                println!("waiting until {what}: {seen}");
                last = seen;
            }
        }
    }

    /// Asks all of them; what is not so.
    fn look(&self, is_so: &impl Fn(&str, &Value) -> bool) -> Result<(), String> {
        for index in (0..COUNT).filter(|index| self.processes[*index].is_some()) {
            let viewer = name(index);
            let done = self.run(index, &["--json", "--timeout", "2", "members"]);
            if done.code != Some(0) {
                // One that stands still does not answer, and is not asked what it thinks of itself.
                if is_so(&viewer, &serde_json::json!({ "name": viewer, "state": "-", "linked": false })) {
                    continue;
                }
                return Err(done.err);
            }
            let members: Value = serde_json::from_str(&done.out).unwrap();
            let members = members.as_array().unwrap();
            let others = || members.iter().filter(|seen| seen["name"] != *viewer);
            if others().count() != COUNT - 1 || !others().all(|seen| is_so(&viewer, seen)) {
                return Err(format!("{viewer}: {}", done.out.trim()));
            }
        }
        Ok(())
    }

    fn process(&self, index: usize) -> Child {
        let config = self.config(index);
        let mut command = self.place.command(&["server", "--config", &config]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The configuration file, as things are now.
    fn config(&self, index: usize) -> String {
        let name = name(index);
        let text = format!(
            "data_dir = \"{name}\"\nname = \"{name}\"\nlisten = \"{}\"\nseeds = [\"{}\"]\nexpect = {}\n\
             secret_file = \"secret\"\n[limits]\nlog_segment_bytes = 1048576\ndisk_reserve_bytes = 1048576\n",
            self.address(index),
            self.address_at(0),
            self.expect,
        );
        self.place.write(&format!("{name}.toml"), &text)
    }

    fn address_at(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at / 3].base + u16::try_from(at % 3).unwrap())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            // A test that failed may have left it standing still; a kill ends it all the same.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn name(index: usize) -> String {
    format!("node{index}")
}
