//! Machines start, stop and lose power; their storage threads work.

use std::time::Duration;

use shoal_node::node::{Input, Node};
use shoal_node::storage::engine::log::LogOptions;
use shoal_node::storage::engine::{Doubt, Engine, OpenError, OpenOptions, cells};
use shoal_node::storage::{CellId, CellPlace, Failure, LogEffect, Recovered, StoreDone, StoreEffect};
use shoal_protocol::id::Actor;
use shoal_protocol::object::Object;
use shoal_protocol::time::Instant;

use super::host::{Door, Process};
use super::storage::{Lane, Storage, StorageStep, describe};
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
            Act::Restore(node) => self.restore(node),
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
        let older = (self.profile.wiped == Some(node)).then(|| self.hosts[node].disk.copy());
        match self.open_all(node) {
            Ok(stores) => {
                self.start(node, stores);
                self.older = older.or(self.older.take());
            }
            Err(error) => {
                self.cannot_open(node, None, &error);
                let later = self.now + self.dice.millis((50, 500));
                self.agenda.plan(later, Event::Boot { node });
            }
        }
    }

    fn start(&mut self, node: usize, (engines, recovered): (Vec<Engine<SimDisk>>, Vec<Recovered>)) {
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
                let (storage, door) = (engines.into_iter().map(Storage::new).collect(), Door::default());
                host.process = Some(Process { node: started, storage, zero, tick_at: None, vain_ticks_count: 0, door });
                let text = format!("boot {}", host.boot);
                self.trace.note(self.now, (node, "boot"), text.as_bytes(), || text.clone());
                self.perform(node, effects);
                self.plan_tick(node);
            }
            Err(error) => self.find("no damage", format!("node {node} does not start: {error}")),
        }
    }

    /// Opens every store of a machine, the home store first.
    fn open_all(&mut self, node: usize) -> Result<(Vec<Engine<SimDisk>>, Vec<Recovered>), OpenError> {
        let options = self.options(node, CellPlace::ALONE);
        let dice = &mut self.dice;
        let incarnation = || Actor::incarnation(dice.number());
        let stores = cells::prepare(&self.hosts[node].disk, &options, Some(self.profile.stores), incarnation)?;
        stores.into_iter().map(|(disk, options)| self.open(node, &disk, options)).collect()
    }

    /// Opens the failed store of a running machine again.
    fn open_again(&mut self, node: usize, cell: CellId) -> Result<(Engine<SimDisk>, Recovered), OpenError> {
        let home = self.hosts[node].disk.clone();
        let disk = if cell.is_home() { home } else { cells::directory(&home, cell)? };
        let options = self.options(node, CellPlace { cell, count: self.profile.stores });
        self.open(node, &disk, options)
    }

    fn open(
        &mut self,
        node: usize,
        disk: &SimDisk,
        options: OpenOptions,
    ) -> Result<(Engine<SimDisk>, Recovered), OpenError> {
        let cell = usize::from(options.place.cell.0);
        let doubt = self.hosts[node].doubt[cell];
        let (engine, recovered) = Engine::open(disk, &OpenOptions { doubt, ..options })?;
        self.hosts[node].doubt[cell] = Doubt::Nothing;
        if recovered.damaged_records > 0 {
            self.find("no damage", format!("node {node} finds {} damaged records", recovered.damaged_records));
        }
        Ok((engine, recovered))
    }

    fn options(&mut self, node: usize, place: CellPlace) -> OpenOptions {
        let host = &self.hosts[node];
        OpenOptions {
            node: host.config.node,
            cluster: Some(host.config.cluster),
            place,
            incarnation: Actor::incarnation(self.dice.number()),
            cache_bytes: CACHE_BYTES,
            log: LogOptions { segment_bytes: SEGMENT_BYTES },
            reserve_bytes: 0,
            doubt: host.doubt[usize::from(place.cell.0)],
        }
    }

    fn cannot_open(&mut self, node: usize, cell: Option<CellId>, error: &OpenError) {
        let text = error.to_string();
        self.trace.note(self.now, (node, "cannot open"), text.as_bytes(), || text.clone());
        self.count("opens failed");
        if self.hosts[node].disk.is_dead() {
            let survival = self.survival();
            let seed = self.dice.number();
            self.hosts[node].disk = self.hosts[node].disk.crash(survival, seed);
            self.hosts[node].trust();
        } else if let OpenError::Disk(failure) = error {
            // Of a start nobody knows which store it was.
            let all = CellPlace::all(self.profile.stores).map(|place| place.cell);
            all.filter(|one| cell.is_none_or(|cell| cell == *one)).for_each(|cell| self.doubt(node, cell, failure));
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
        self.hosts[node].trust();
        self.shadows.retain(|(of, _), _| *of != node);
    }

    /// The machine loses power and its disk.
    fn wipe(&mut self, node: usize) {
        self.count("wipes");
        self.crash(node);
        self.hosts[node].disk = SimDisk::default();
    }

    /// The machine loses power and gets the disk it had before it last started.
    fn restore(&mut self, node: usize) {
        let Some(disk) = self.older.take() else { return self.wipe(node) };
        self.count("restores");
        self.crash(node);
        self.hosts[node].disk = disk;
    }

    /// Flips a bit of an object wherever it lies in the rows of a machine that is off; whether it was found there.
    pub fn rot(&mut self, node: usize, object: &Object) -> bool {
        let bytes = object.encode();
        let disk = self.hosts[node].disk.clone();
        let mut found = false;
        for (name, _) in disk.files().into_iter().filter(|(name, _)| name.ends_with("rows.redb")) {
            let file = disk.bytes(&name);
            let places = file.windows(bytes.len()).enumerate().filter(|(_, window)| *window == &bytes[..]);
            for (at, _) in places.filter(|_| bytes.len() >= ROT_BYTES_MIN) {
                disk.flip(&name, at + self.dice.index(bytes.len()), 3);
                found = true;
            }
        }
        found
    }

    fn doubt(&mut self, node: usize, cell: CellId, failure: &Failure) {
        let doubt = &mut self.hosts[node].doubt[usize::from(cell.0)];
        *doubt = failure.doubt().max(*doubt);
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
    pub(super) fn push_storage(&mut self, (node, cell): (usize, CellId), effect: StoreEffect) {
        let boot = self.hosts[node].boot;
        if self.mutant == Some(Mutant::AckBeforeSync)
            && let StoreEffect::Log(LogEffect::Append { records }) = &effect
            && let Some(last) = records.last()
        {
            let done = StoreDone::Synced { through: last.lsn, log_end: 0 };
            self.agenda.plan(self.now, Event::Storage { node, boot, cell, step: StorageStep::Done(Box::new(done)) });
        }
        if matches!(self.mutant, Some(Mutant::SkipCovered | Mutant::LimitInMerge))
            && let StoreEffect::Log(LogEffect::Append { records }) = &effect
        {
            for record in records {
                let applied = Object::decode(&record.delta).expect("nodes log canonical deltas");
                self.shadows.entry((node, record.key.place())).or_default().merge_into(&applied);
            }
        }
        let Some(lane) = Lane::of(&effect) else {
            self.plan_storage((node, cell), REOPEN_US, StorageStep::Reopen);
            return;
        };
        let Some(process) = &mut self.hosts[node].process else { return };
        let storage = &mut process.storage[usize::from(cell.0)];
        if storage.engine.is_none() {
            return;
        }
        // Without a thread of its own the reader waits with the log.
        let lane = if lane == Lane::Reads && !self.profile.storage.has_reader { Lane::Log } else { lane };
        let queue = storage.lane(lane);
        queue.effects.push(effect);
        if !std::mem::replace(&mut queue.is_working, true) {
            self.plan_storage((node, cell), self.lane_us(lane), StorageStep::Work(lane));
        }
    }

    fn lane_us(&self, lane: Lane) -> (u64, u64) {
        match lane {
            Lane::Log | Lane::Rows => self.profile.storage.write_us,
            Lane::Reads => self.profile.storage.read_us,
        }
    }

    fn plan_storage(&mut self, (node, cell): (usize, CellId), after_us: (u64, u64), step: StorageStep) {
        let time = self.dice.micros(after_us).saturating_mul(self.hosts[node].slow_disk);
        let at = self.now + time.min(STORAGE_MAX);
        let boot = self.hosts[node].boot;
        self.agenda.plan(at, Event::Storage { node, boot, cell, step });
    }

    /// The storage threads of a running node go on.
    pub(super) fn storage_step(&mut self, (node, cell): (usize, CellId), step: StorageStep) {
        match step {
            StorageStep::Work(lane) => self.work((node, cell), lane),
            StorageStep::Reopen => self.reopen((node, cell)),
            StorageStep::Done(done) => {
                let text = format!("{} {}", cell.0, describe(&done));
                self.trace.note(self.now, (node, "stored"), text.as_bytes(), || text.clone());
                if matches!(*done, StoreDone::Failed(_)) {
                    self.count("storage failures");
                    if self.profile.stores > 1 {
                        self.count("failures of one store of several");
                    }
                }
                if matches!(*done, StoreDone::Flushed { .. }) {
                    self.count("flushes");
                }
                self.feed(node, Input::Stored { cell, done: *done });
            }
        }
    }

    fn work(&mut self, (node, cell): (usize, CellId), lane: Lane) {
        let all = self.dice.percent(80);
        let Some(process) = &mut self.hosts[node].process else { return };
        let storage = &mut process.storage[usize::from(cell.0)];
        let queue = storage.lane(lane);
        let count = if all { queue.effects.len() } else { self.dice.index(queue.effects.len()) + 1 };
        let batch: Vec<StoreEffect> = queue.effects.drain(..count.min(queue.effects.len())).collect();
        let again = !queue.effects.is_empty();
        queue.is_working = again;
        let done = storage.engine.as_mut().map(|engine| engine.perform(batch)).unwrap_or_default();
        if again {
            self.plan_storage((node, cell), self.lane_us(lane), StorageStep::Work(lane));
        }
        self.done((node, cell), done);
    }

    /// Plans completions; the machine dies if it lost power on the way.
    fn done(&mut self, (node, cell): (usize, CellId), done: Vec<StoreDone>) {
        if self.hosts[node].disk.is_dead() {
            return self.lose_power(node);
        }
        for done in done {
            if let StoreDone::Failed(failure) = &done {
                self.doubt(node, cell, failure);
            }
            let earliest = self.now + self.dice.micros(self.profile.storage.done_us);
            let boot = self.hosts[node].boot;
            let Some(process) = &mut self.hosts[node].process else { return };
            let storage = &mut process.storage[usize::from(cell.0)];
            let at = storage.done_at(&done, earliest);
            if matches!(done, StoreDone::Failed(_)) {
                storage.bury();
            }
            self.agenda.plan(at, Event::Storage { node, boot, cell, step: StorageStep::Done(Box::new(done)) });
        }
    }

    /// The machine lost power in the middle of something, all of its stores with it, and comes back.
    fn lose_power(&mut self, node: usize) {
        self.count("torn writes");
        self.crash(node);
        let later = self.now + self.dice.millis((50, 2_000));
        self.agenda.plan(later, Event::Boot { node });
    }

    fn reopen(&mut self, (node, cell): (usize, CellId)) {
        match self.open_again(node, cell) {
            Ok((engine, recovered)) => {
                if let Some(process) = &mut self.hosts[node].process {
                    process.storage[usize::from(cell.0)] = Storage::new(engine);
                }
                let done = StoreDone::Reopened(Box::new(recovered));
                self.storage_step((node, cell), StorageStep::Done(Box::new(done)));
            }
            Err(_) if self.hosts[node].disk.is_dead() => self.lose_power(node),
            Err(error) => {
                self.cannot_open(node, Some(cell), &error);
                self.plan_storage((node, cell), REOPEN_US, StorageStep::Reopen);
            }
        }
    }
}

/// A log that is recycled in every run.
const SEGMENT_BYTES: u64 = 64 << 10;
/// Pages that redb may keep; small databases fit.
const CACHE_BYTES: usize = 256 << 10;
/// How long a host waits before it opens a failed store again, µs.
const REOPEN_US: (u64, u64) = (20_000, 300_000);
/// No disk takes longer for one step: faults end, and what was begun with them must end too.
const STORAGE_MAX: Duration = Duration::from_secs(3);
/// Shorter objects might be found where they are not.
const ROT_BYTES_MIN: usize = 24;
