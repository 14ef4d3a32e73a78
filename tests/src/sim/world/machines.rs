//! Machines start, stop and lose power; their storage threads work.

use std::time::Duration;

use shoal_node::node::{Input, Node};
use shoal_node::storage::engine::{Doubt, Engine, OpenError, OpenOptions};
use shoal_node::storage::{Failure, Recovered, StoreDone, StoreEffect};
use shoal_protocol::id::Actor;
use shoal_protocol::object::Object;
use shoal_protocol::time::Instant;

use super::host::{Door, Process};
use super::storage::{Storage, StorageStep, describe};
use super::{Event, World};
use crate::sim::disk::{SimDisk, Survival};
use crate::sim::faults::{Act, DiskAct};
use crate::sim::mutant::Mutant;

impl World {
    /// One step of a fault.
    pub fn act(&mut self, act: Act) {
        self.trace.note(self.now, (usize::MAX, "act"), format!("{act:?}").as_bytes(), || format!("{act:?}"));
        match act {
            Act::Stop(pairs) => self.network.stop(&pairs),
            Act::Free(pairs) => self.network.free(&pairs),
            Act::SlowNode(node, factor) => self.network.slow_down(node, factor),
            Act::Crash(node) => self.crash(node),
            Act::Wipe(node) => self.wipe(node),
            Act::Lose(node) => {
                self.crash(node);
                self.hosts[node].is_lost = true;
            }
            Act::Halt(node) => self.halt(node),
            Act::Boot(node) => self.boot(node),
            Act::Skew(node) => self.hosts[node].skew_ms = self.skew(),
            Act::Disk(node, disk) => self.act_on_disk(node, disk),
        }
    }

    /// Ends every fault, for good, and starts what does not run.
    pub fn heal(&mut self) {
        self.calm = true;
        self.network.calm();
        for node in 0..self.hosts.len() {
            self.hosts[node].slow_disk = 1;
            self.hosts[node].is_lost = false;
            self.hosts[node].disk.set_space(crate::sim::disk::Space::Enough);
            self.hosts[node].disk.calm();
            self.boot(node);
        }
    }

    fn act_on_disk(&mut self, node: usize, act: DiskAct) {
        let host = &mut self.hosts[node];
        let disk = &host.disk;
        match act {
            DiskAct::ErrorIn(operations) => disk.error_at(disk.operations() + operations),
            DiskAct::ReadErrorIn(reads) => disk.read_error_at(reads),
            DiskAct::CrashIn(operations) => disk.crash_at(disk.operations() + operations),
            DiskAct::Full => {
                let bytes: usize = disk.files().iter().map(|(_, bytes)| bytes).sum();
                disk.set_space(crate::sim::disk::Space::Reserve(bytes as u64));
            }
            DiskAct::Free => disk.set_space(crate::sim::disk::Space::Enough),
            DiskAct::Slow(factor) => host.slow_disk = factor,
        }
    }

    /// Starts a node, unless it runs; tries again later if its disk does not let it.
    pub(super) fn boot(&mut self, node: usize) {
        if self.is_running(node) || self.hosts[node].is_lost {
            return;
        }
        match self.open(node) {
            Ok((engine, recovered)) => self.start(node, (engine, recovered)),
            Err(error) => {
                self.cannot_open(node, &error);
                let later = self.now + self.dice.millis((50, 500));
                self.agenda.plan(later, Event::Boot { node });
            }
        }
    }

    fn start(&mut self, node: usize, (engine, recovered): (Engine, Recovered)) {
        self.count("boots");
        let seed = self.dice.seed();
        let zero = self.dice.below(1 << 40);
        let nonce = self.dice.number();
        let host = &mut self.hosts[node];
        host.boot += 1;
        host.config.boot_nonce = nonce;
        let mut now = host.clock(self.now);
        now.instant = Instant(self.now.0 + zero);
        let mut effects = Vec::new();
        match Node::new(host.config.clone(), recovered, seed, now, &mut effects) {
            Ok(started) => {
                let (storage, door) = (Storage::new(engine), Door::default());
                host.process = Some(Process { node: started, storage, zero, tick_at: None, door });
                let text = format!("boot {}", host.boot);
                self.trace.note(self.now, (node, "boot"), text.as_bytes(), || text.clone());
                self.perform(node, effects);
                self.plan_tick(node);
            }
            Err(error) => self.find("no damage", format!("node {node} does not start: {error}")),
        }
    }

    fn open(&mut self, node: usize) -> Result<(Engine, Recovered), OpenError> {
        let incarnation = Actor::incarnation(self.dice.number());
        let host = &mut self.hosts[node];
        let (cluster, doubt) = (Some(host.config.cluster), host.doubt);
        let options = OpenOptions { node: host.config.node, cluster, incarnation, cache_bytes: CACHE_BYTES, doubt };
        let (engine, recovered) = Engine::open(&host.disk, &options)?;
        host.doubt = Doubt::Nothing;
        if recovered.damaged_records > 0 {
            self.find("no damage", format!("node {node} finds {} damaged records", recovered.damaged_records));
        }
        Ok((engine, recovered))
    }

    fn cannot_open(&mut self, node: usize, error: &OpenError) {
        let text = error.to_string();
        self.trace.note(self.now, (node, "cannot open"), text.as_bytes(), || text.clone());
        self.count("opens failed");
        if self.hosts[node].disk.is_dead() {
            let survival = self.survival();
            let seed = self.dice.number();
            self.hosts[node].disk = self.hosts[node].disk.crash(survival, seed);
            self.hosts[node].doubt = Doubt::Nothing;
        } else if let OpenError::Disk(failure) = error {
            self.doubt(node, failure);
        } else {
            self.find("no damage", format!("node {node} cannot open its store: {error}"));
        }
    }

    /// The machine loses power.
    pub(super) fn crash(&mut self, node: usize) {
        self.count("crashes");
        let (survival, seed) = (self.survival(), self.dice.number());
        let disk = self.hosts[node].disk.crash(survival, seed);
        self.end(node);
        self.hosts[node].disk = disk;
        self.hosts[node].doubt = Doubt::Nothing;
        self.shadows.retain(|(of, _), _| *of != node);
    }

    /// The machine loses power and its disk.
    fn wipe(&mut self, node: usize) {
        self.count("wipes");
        self.crash(node);
        self.hosts[node].disk = SimDisk::default();
        self.wiped = Some(node);
    }

    fn doubt(&mut self, node: usize, failure: &Failure) {
        let host = &mut self.hosts[node];
        host.doubt = host.doubt.max(failure.doubt());
    }

    /// The process stops in good order: files are closed, nothing is answered any more.
    fn halt(&mut self, node: usize) {
        self.count("halts");
        // Nobody learns of an error while the last process closes its files; docs/decisions/0009 names the gap.
        self.hosts[node].disk.calm();
        self.end(node);
    }

    fn end(&mut self, node: usize) {
        let Some(process) = self.hosts[node].process.take() else { return };
        for (client, attempt) in process.door.waiting() {
            self.lose(client, attempt.0);
        }
        self.network.forget_caller(node);
        self.trace.note(self.now, (node, "end"), &[], String::new);
    }

    fn survival(&mut self) -> Survival {
        self.dice.pick(&Survival::ALL)
    }

    /// Hands an effect to the storage threads.
    pub(super) fn push_storage(&mut self, node: usize, effect: StoreEffect) {
        let boot = self.hosts[node].boot;
        if self.mutant == Some(Mutant::AckBeforeSync)
            && let StoreEffect::Append { records } = &effect
            && let Some(last) = records.last()
        {
            let done = StoreDone::Synced { through: last.lsn };
            self.agenda.plan(self.now, Event::Storage { node, boot, step: StorageStep::Done(Box::new(done)) });
        }
        if matches!(self.mutant, Some(Mutant::SkipCovered | Mutant::LimitInMerge))
            && let StoreEffect::Append { records } = &effect
        {
            for record in records {
                let applied = Object::decode(&record.delta).expect("nodes log canonical deltas");
                self.shadows.entry((node, record.key.place())).or_default().merge_into(&applied);
            }
        }
        if matches!(effect, StoreEffect::Reopen) {
            self.plan_storage(node, REOPEN_US, StorageStep::Reopen);
            return;
        }
        let reads = matches!(effect, StoreEffect::Load { .. } | StoreEffect::Scan(_));
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.storage.engine.is_none() {
            return;
        }
        if reads && self.profile.storage.has_reader {
            process.storage.reads.push(effect);
            if !std::mem::replace(&mut process.storage.is_reading, true) {
                self.plan_storage(node, self.profile.storage.read_us, StorageStep::Read);
            }
        } else {
            process.storage.writes.push(effect);
            if !std::mem::replace(&mut process.storage.is_writing, true) {
                self.plan_storage(node, self.profile.storage.write_us, StorageStep::Write);
            }
        }
    }

    fn plan_storage(&mut self, node: usize, after_us: (u64, u64), step: StorageStep) {
        let time = self.dice.micros(after_us).saturating_mul(self.hosts[node].slow_disk);
        let at = self.now + time.min(STORAGE_MAX);
        let boot = self.hosts[node].boot;
        self.agenda.plan(at, Event::Storage { node, boot, step });
    }

    /// The storage threads of a running node go on.
    pub(super) fn storage_step(&mut self, node: usize, step: StorageStep) {
        match step {
            StorageStep::Write => self.write(node),
            StorageStep::Read => self.read(node),
            StorageStep::Reopen => self.reopen(node),
            StorageStep::Done(done) => {
                let text = describe(&done);
                self.trace.note(self.now, (node, "stored"), text.as_bytes(), || text.clone());
                if matches!(*done, StoreDone::Failed(_)) {
                    self.count("storage failures");
                }
                if matches!(*done, StoreDone::Flushed { .. }) {
                    self.count("flushes");
                }
                self.feed(node, Input::Stored(*done));
            }
        }
    }

    fn write(&mut self, node: usize) {
        let all = self.dice.percent(80);
        let Some(process) = &mut self.hosts[node].process else { return };
        let storage = &mut process.storage;
        let count = if all { storage.writes.len() } else { self.dice.index(storage.writes.len()) + 1 };
        let batch: Vec<StoreEffect> = storage.writes.drain(..count.min(storage.writes.len())).collect();
        storage.is_writing = !storage.writes.is_empty();
        let again = storage.is_writing;
        let done = storage.engine.as_mut().map(|engine| engine.perform(batch)).unwrap_or_default();
        if again {
            self.plan_storage(node, self.profile.storage.write_us, StorageStep::Write);
        }
        self.done(node, done);
    }

    fn read(&mut self, node: usize) {
        let Some(process) = &mut self.hosts[node].process else { return };
        process.storage.is_reading = false;
        let batch = std::mem::take(&mut process.storage.reads);
        let reader = process.storage.engine.as_ref().and_then(Engine::reader);
        let done = reader.map(|reader| reader.perform(batch)).unwrap_or_default();
        self.done(node, done);
    }

    /// Plans completions; the machine dies if it lost power on the way.
    fn done(&mut self, node: usize, done: Vec<StoreDone>) {
        if self.hosts[node].disk.is_dead() {
            self.count("torn writes");
            self.crash(node);
            let later = self.now + self.dice.millis((50, 2_000));
            self.agenda.plan(later, Event::Boot { node });
            return;
        }
        for done in done {
            if let StoreDone::Failed(failure) = &done {
                self.doubt(node, failure);
            }
            let earliest = self.now + self.dice.micros(self.profile.storage.done_us);
            let boot = self.hosts[node].boot;
            let Some(process) = &mut self.hosts[node].process else { return };
            let at = process.storage.done_at(&done, earliest);
            if matches!(done, StoreDone::Failed(_)) {
                process.storage.engine = None;
                process.storage.writes.clear();
                process.storage.reads.clear();
            }
            self.agenda.plan(at, Event::Storage { node, boot, step: StorageStep::Done(Box::new(done)) });
        }
    }

    fn reopen(&mut self, node: usize) {
        match self.open(node) {
            Ok((engine, recovered)) => {
                if let Some(process) = &mut self.hosts[node].process {
                    process.storage = Storage::new(engine);
                }
                let done = StoreDone::Reopened(Box::new(recovered));
                self.storage_step(node, StorageStep::Done(Box::new(done)));
            }
            Err(error) => {
                self.cannot_open(node, &error);
                self.plan_storage(node, REOPEN_US, StorageStep::Reopen);
            }
        }
    }
}

/// Pages that redb may keep; small databases fit.
const CACHE_BYTES: usize = 256 << 10;
/// How long a host waits before it opens a failed store again, µs.
const REOPEN_US: (u64, u64) = (20_000, 300_000);
/// No disk takes longer for one step: faults end, and what was begun with them must end too.
const STORAGE_MAX: Duration = Duration::from_secs(3);
