//! The end of a history: faults stop, unknown operations are repeated, every key is read once from all replicas; then the
//! replicas are looked at one by one.
//!
//! Rules: all nodes serve again, and believe each other alive; every repeated operation gets its verdict; replicas hold equal bytes; nothing acknowledged
//! and nothing ever shown is missing; a last loss of power changes nothing.

use std::time::Duration;

use shoal_protocol::client::{ClientRequest, ClientResponse, Get, Got, MemberStatus, Row, Scan, ScanScope, Status};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::NodeId;
use shoal_protocol::object::{Object, View};
use shoal_protocol::peer::{PeerResponse, Refusal};
use shoal_protocol::time::WallTime;

use super::client::Client;
use super::faults::Act;
use super::mutant::Mutant;
use super::world::EXCHANGE_PERIOD;
use super::{Sim, oracle};

impl Sim {
    /// Heals everything and judges.
    pub(super) fn end(&mut self) {
        self.clients.iter_mut().for_each(Client::stop);
        if self.scenario.lasting_fault && self.scenario.nodes == 3 {
            self.demand_progress_of_two();
        }
        if self.scenario.nodes == 5 && self.scenario.newcomers == 0 && self.scenario.wiped.is_none() {
            self.demand_handoff();
        }
        self.calm();
        if !self.see_leavers_off() || !self.wait_until_serving() {
            return;
        }
        // Every message of before has arrived or is lost, every deadline is over.
        self.run_for(Duration::from_secs(10));
        self.world.inspect();
        if !self.settle_unknown() {
            return;
        }
        if !self.await_handoff() {
            return;
        }
        self.become_equal_unasked();
        let Some(objects) = self.read_everything() else { return };
        self.run_for(Duration::from_secs(3));
        let held = self.compare_replicas();
        for (key, object) in objects.iter().enumerate() {
            oracle::judge(&mut self.world, &self.history, key, object);
            if held[key].as_ref().is_some_and(|held| held != object) {
                self.world.find("convergence", format!("{:?}: a read shows another", self.history.keys[key].place));
            }
        }
        self.scan_everything(&objects);
        if self.scenario.rots {
            self.rot(&objects);
        }
        self.check_keyspaces();
        if self.scenario.dark_end {
            self.lose_power(&held);
        }
        self.world.inspect();
    }

    /// Nobody reads, and yet all replicas come to hold the same.
    fn become_equal_unasked(&mut self) {
        // Without comparisons it is for reads to repair what they find.
        if matches!(self.world.mutant, Some(Mutant::NoRepair | Mutant::LimitInMerge)) {
            return;
        }
        let until = self.world.now + 2 * EXCHANGE_PERIOD;
        while self.world.now < until {
            if self.probe_replicas().iter().all(|answers| Self::is_one(answers)) && self.is_refilled() {
                self.world.count("equal unasked");
                return;
            }
            self.run_for(Duration::from_secs(3));
        }
        self.compare_replicas();
        if !self.is_refilled() {
            self.world.find("wiped", "a new store did not pull what its node holds from all others");
        }
    }

    /// Whether a node that lost its disk has found each of its partitions equal to that of every other holder since.
    fn is_refilled(&self) -> bool {
        let status = self.scenario.wiped.and_then(|node| self.world.status(node));
        status.is_none_or(|status| {
            figure(&status, "repair_partitions_never_clean") == 0 && !status.members[0].catching_up
        })
    }

    /// Whether all replicas that show an object show the same.
    fn is_one(answers: &[Option<PeerResponse>]) -> bool {
        let mut states = answers.iter().flatten().filter(|answer| matches!(answer, PeerResponse::State { .. }));
        let first = states.next();
        states.all(|state| Some(state) == first)
    }

    /// Whoever is to leave does, sooner or later.
    fn see_leavers_off(&mut self) -> bool {
        for node in self.scenario.leavers.clone() {
            let until = self.world.now + SERVE_MAX;
            while !self.let_leave(node) {
                if self.world.now > until {
                    self.world.find("progress", format!("node {node} may not leave, long after the faults stopped"));
                    self.tell_standings();
                    return false;
                }
                self.run_for(Duration::from_secs(1));
            }
        }
        true
    }

    /// Adds what every node says to what was found.
    fn tell_standings(&mut self) {
        for node in 0..self.world.nodes() {
            let standing = self.world.standing(node);
            self.world.find("progress", format!("node {node} {standing}"));
        }
    }

    pub(super) fn wait_until_serving(&mut self) -> bool {
        let leavers: Vec<NodeId> = self.scenario.leavers.iter().map(|node| self.world.id(*node)).collect();
        // And whatever anybody was believed to be meanwhile, all can ask all again.
        let is_well = |status: Status, nodes| {
            status.serving.is_ok()
                && status.members.len() == nodes
                && status.members.iter().all(MemberStatus::is_reachable)
                && status.members.iter().all(|member| !member.catching_up)
                && status.members.iter().all(|member| member.in_layout != leavers.contains(&member.endpoint.node))
                && status.figures.iter().any(|figure| *figure == ("layouts".to_owned(), 1))
        };
        let all_serve = |sim: &Self| {
            let nodes = sim.world.nodes();
            (0..nodes).all(|node| sim.world.status(node).is_some_and(|status| is_well(status, nodes)))
        };
        let until = self.world.now + SERVE_MAX;
        // `status` is no small work: look now and then.
        while !all_serve(self) {
            if self.world.now > until {
                self.world.find("progress", "not all nodes serve, reach each other and are synced under one layout");
                self.tell_standings();
                return false;
            }
            self.run_for(Duration::from_millis(100));
        }
        true
    }

    /// Repeats what is unknown until nothing is.
    fn settle_unknown(&mut self) -> bool {
        for _ in 0..ROUNDS_MAX {
            if !self.clients.iter().any(Client::has_unknown) {
                return true;
            }
            for client in &mut self.clients {
                client.repeat_all(&mut self.world, &mut self.history);
            }
            self.run_for(Duration::from_secs(5));
        }
        self.world.find("progress", "operations stay unknown although nothing fails any more");
        false
    }

    /// Reads every key once with r = n, each through some node.
    fn read_everything(&mut self) -> Option<Vec<Object>> {
        let mut objects = Vec::new();
        for key in 0..self.history.keys.len() {
            let get = Get {
                place: self.history.keys[key].place.clone(),
                r: Some(self.history.space_of(key).n),
                min_ctx: None,
            };
            let (get, got) = self.read_patiently(get)?;
            let floor = self.history.floor(key, get.r);
            objects.push(self.history.got(&mut self.world, key, (&get, &floor), &got));
        }
        Some(objects)
    }

    /// Reads as asked, with all replicas: one that lost its disk has caught up by now.
    pub(super) fn read_patiently(&mut self, get: Get) -> Option<(Get, Got)> {
        let mut last: Option<Result<ClientResponse, RequestError>> = None;
        for _ in 0..5 {
            let node = self.world.dice.index(self.world.nodes());
            last = self.ask(node, ClientRequest::Get(get.clone()), Duration::from_secs(3));
            if let Some(Ok(ClientResponse::Got(got))) = last {
                return Some((get, got));
            }
        }
        self.world.find("progress", format!("{:?} cannot be read although nothing fails: {last:?}", get.place));
        None
    }

    /// What every key's replicas hold, if it is the same; findings if not.
    pub(super) fn compare_replicas(&mut self) -> Vec<Option<Object>> {
        let probed = self.probe_replicas();
        probed.iter().enumerate().map(|(key, answers)| self.compare(key, answers)).collect()
    }

    /// What every node says of each key, past all coordinators.
    fn probe_replicas(&mut self) -> Vec<Vec<Option<PeerResponse>>> {
        let nodes = self.world.nodes();
        let mut asked = Vec::new();
        for key in 0..self.history.keys.len() {
            let place = self.history.keys[key].place.clone();
            asked.push((0..nodes).map(|node| self.world.probe(node, &place)).collect::<Vec<_>>());
        }
        self.run_for(Duration::from_secs(2));
        let answers = |requests: Vec<_>| requests.into_iter().map(|request| self.world.probed(request)).collect();
        asked.into_iter().map(answers).collect()
    }

    fn compare(&mut self, key: usize, answers: &[Option<PeerResponse>]) -> Option<Object> {
        let place = self.history.keys[key].place.clone();
        let mut states = Vec::new();
        for answer in answers {
            match answer {
                Some(PeerResponse::Refused(Refusal::NotReplica)) => {}
                Some(PeerResponse::State { object, digest }) => states.push((object.clone(), *digest)),
                other => self.world.find("progress", format!("a replica does not show {place:?}: {other:?}")),
            }
        }
        if states.len() != usize::from(self.history.space_of(key).n) {
            self.world.find("placement", format!("{place:?} has {} replicas", states.len()));
        }
        if states.windows(2).any(|pair| pair[0] != pair[1]) {
            let objects: Vec<_> = states.iter().map(|(bytes, _)| Object::decode(bytes)).collect();
            self.world.find("convergence", format!("replicas of {place:?} differ: {objects:#?}"));
            return None;
        }
        let (bytes, _) = states.first()?;
        Some(Object::decode(bytes).expect("nodes hold canonical objects"))
    }

    /// Scans show exactly what reads show.
    fn scan_everything(&mut self, objects: &[Object]) {
        for space in 0..self.history.spaces.len() {
            let keys: Vec<usize> = (0..objects.len()).filter(|key| self.history.keys[*key].space == space).collect();
            let conflict = self.history.spaces[space].spec.conflict;
            let class = self.history.spaces[space].spec.class;
            let live = |key: &usize| objects[*key].view(conflict, WallTime(0)) != View::Absent;
            let mut expected: Vec<_> = keys.iter().filter(|key| live(key)).copied().collect();
            let mut indexes: Vec<u16> =
                keys.iter().map(|key| self.history.keys[*key].place.partition(class).index).collect();
            indexes.sort_unstable();
            indexes.dedup();
            for index in indexes {
                let Some(rows) = self.scan_patiently(space, index) else { return };
                for row in rows {
                    let at = expected.iter().position(|key| {
                        let place = &self.history.keys[*key].place;
                        place.key == row.key
                            && place.collection == row.collection
                            && objects[*key].encode() == row.object
                    });
                    match at {
                        Some(at) => drop(expected.remove(at)),
                        None => {
                            let scanned = Object::decode(&row.object);
                            let read = keys.iter().filter(|key| self.history.keys[**key].place.key == row.key);
                            let read: Vec<&Object> = read.map(|key| &objects[*key]).collect();
                            self.world.find("scan", format!("{:?} is {scanned:?}, reads show {read:?}", row.key));
                        }
                    }
                }
            }
            if !expected.is_empty() {
                self.world.find("scan", format!("rows missing at the end: {expected:?}"));
            }
        }
    }

    /// All rows of a partition, page by page, each page from some node.
    fn scan_patiently(&mut self, space: usize, index: u16) -> Option<Vec<Row>> {
        let mut scan = Scan {
            keyspace: self.history.spaces[space].id,
            scope: ScanScope::Partition(index),
            prefix: bytes::Bytes::new(),
            cursor: None,
            reverse: self.world.dice.percent(50),
            limit: self.world.dice.pick(&[1, 2, 100]),
            values: true,
            r: None,
        };
        let mut rows = Vec::new();
        for _ in 0..30 {
            let node = self.world.dice.index(self.world.nodes());
            let answer = self.ask(node, ClientRequest::Scan(scan.clone()), Duration::from_secs(3));
            if let Some(Ok(ClientResponse::Page(page))) = answer
                && page.complete
            {
                rows.extend(page.rows);
                if page.cursor.is_none() {
                    return Some(rows);
                }
                scan.cursor = page.cursor;
            }
        }
        self.world.find("progress", "a partition cannot be scanned although nothing fails");
        None
    }

    /// All machines lose power at once, and have lost nothing.
    fn lose_power(&mut self, before: &[Option<Object>]) {
        for node in 0..self.world.nodes() {
            self.world.act(Act::Crash(node));
        }
        for node in 0..self.world.nodes() {
            self.world.act(Act::Boot(node));
        }
        if !self.wait_until_serving() {
            return;
        }
        self.run_for(Duration::from_secs(2));
        let after = self.compare_replicas();
        for (key, (before, after)) in before.iter().zip(after).enumerate() {
            if *before != after {
                let place = &self.history.keys[key].place;
                self.world.find("durability", format!("{place:?} is another after a loss of power"));
            }
        }
    }
}

/// A figure of a node.
pub(super) fn figure(status: &Status, name: &str) -> u64 {
    status.figures.iter().find(|(found, _)| found == name).map_or(0, |(_, value)| *value)
}

/// All nodes serve so long after the last fault.
const SERVE_MAX: Duration = Duration::from_secs(120);
/// Rounds of repeating; each leaves time for every attempt.
const ROUNDS_MAX: usize = 12;
