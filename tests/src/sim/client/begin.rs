//! What a client begins: writes, reads, scans, batches, repeats, now and then a restart of itself.

use shoal_client::session::{Observed, StoredSession};
use shoal_protocol::client::{Get, Operate};
use shoal_protocol::object::{Object, Operation};

use super::{Client, Intent, Task, page};
use crate::sim::history::{Fate, History, Write};
use crate::sim::scenario::KeyKind;
use crate::sim::workload;
use crate::sim::world::World;

impl Client {
    pub(super) fn begin_something(&mut self, world: &mut World, history: &mut History) {
        if !self.intents.is_empty() {
            let intent = self.intents.remove(0);
            return self.bind(world, history, intent);
        }
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let key = world.dice.index(history.keys.len());
        match world.dice.index(100) {
            0..=57 => self.begin_write(world, history, key),
            58..=77 => {
                let task = self.read(world, history, key);
                self.begin(world, history, task);
            }
            78..=82 => self.begin_scan(world, history, key),
            83..=87 => self.begin_batch(world, history),
            88..=97 => {
                if !self.unknown.is_empty() {
                    let at = world.dice.index(self.unknown.len());
                    let write = self.unknown.swap_remove(at);
                    self.repeat(world, history, write);
                }
            }
            98 => self.current = None,
            _ => self.sleep_and_wake(),
        }
    }

    /// The process ends and another goes on with the session.
    fn sleep_and_wake(&mut self) {
        let Some(current) = self.current else { return };
        if self.running.values().any(|running| running.session == current) {
            return;
        }
        if let Some(session) = self.sessions.remove(&current) {
            let stored = StoredSession::decode(&session.suspend().encode()).expect("it is what was encoded");
            self.sessions.insert(current, stored.resume());
        }
    }

    fn begin_write(&mut self, world: &mut World, history: &mut History, key: usize) {
        let seen = self.memory.get(&key).map(|memory| memory.view.clone());
        let (operation, look) = workload::draw(&mut world.dice, history, key, seen.as_ref());
        let w = self.odd_quorum(world, history, key);
        if history.keys[key].kind.is_loose() && world.dice.percent(50) {
            return self.begin_operate(world, history, (key, operation, w));
        }
        let blind = look == workload::Look::Blind;
        let loose = history.keys[key].kind.is_loose();
        match self.memory.get(&key).cloned() {
            _ if blind => {
                self.bind(world, history, Intent { key, operation, observed: Observed::default(), w });
            }
            // What was read earlier, perhaps long ago; perhaps only its context was kept.
            Some(memory) if loose || world.dice.percent(25) => {
                let object = if !loose && world.dice.percent(30) {
                    Object::of_context(memory.object.context().clone())
                } else {
                    memory.object
                };
                let observed = Observed { object, contexts: vec![memory.context] };
                self.bind(world, history, Intent { key, operation, observed, w });
            }
            Some(_) | None => {
                let floor = history.floor(key, None);
                let get = Get { place: history.keys[key].place.clone(), r: None, min_ctx: None };
                self.begin(world, history, Task::Read { key, get, floor, then: Some((operation, w)) });
            }
        }
    }

    fn begin_operate(
        &mut self,
        world: &mut World,
        history: &mut History,
        (key, operation, w): (usize, Operation, Option<u8>),
    ) {
        let task = self.operate(history, (key, operation, w));
        self.begin(world, history, task);
    }

    fn operate(&self, history: &mut History, (key, operation, w): (usize, Operation, Option<u8>)) -> Task {
        let removes = matches!(operation, Operation::SetRemove { .. });
        let memory = self.memory.get(&key).filter(|_| removes);
        let context = memory.map(|memory| memory.context.clone());
        let observed = memory.map(|memory| memory.object.clone()).unwrap_or_default();
        let place = history.keys[key].place.clone();
        let operate = Box::new(Operate { place, operation: operation.clone(), context, w, quorum: None });
        let write = history.begin_write(key, Write { operation, observed, bound: None, fate: Fate::Open });
        Task::Operate { key, write, operate }
    }

    fn read(&self, world: &mut World, history: &History, key: usize) -> Task {
        let r = self.odd_quorum(world, history, key);
        let remembered = self.memory.get(&key).filter(|_| world.dice.percent(50));
        let min_ctx = remembered.map(|memory| memory.context.clone());
        let get = Get { place: history.keys[key].place.clone(), r, min_ctx };
        Task::Read { key, floor: history.floor(key, r), get, then: None }
    }

    fn begin_batch(&mut self, world: &mut World, history: &mut History) {
        let mut tasks = Vec::new();
        for _ in 0..world.dice.between(1, 4) {
            let key = world.dice.index(history.keys.len());
            if history.keys[key].kind.is_loose() {
                let fresh = i64::try_from(history.fresh_value()).unwrap_or_default();
                let operation = match history.keys[key].kind {
                    KeyKind::LooseCounter => Operation::CounterAdd { by: 1 },
                    _ => Operation::SetAdd { element: shoal_protocol::object::Element::Int(fresh) },
                };
                tasks.push(self.operate(history, (key, operation, None)));
            } else if world.dice.percent(50) {
                tasks.push(self.read(world, history, key));
            } else {
                let (operation, look) = workload::draw(&mut world.dice, history, key, None);
                let intent = Intent { key, operation, observed: Observed::default(), w: None };
                if look == workload::Look::Blind
                    && let Some(write) = self.bound(world, history, intent)
                {
                    tasks.push(Task::Write(Box::new(write)));
                }
            }
        }
        if !tasks.is_empty() {
            self.begin(world, history, Task::Batch(tasks));
        }
    }

    fn begin_scan(&mut self, world: &mut World, history: &mut History, key: usize) {
        let (scan, floors) = page::draw(world, history, history.keys[key].space);
        self.begin(world, history, Task::Scan { scan, floors });
    }
}
