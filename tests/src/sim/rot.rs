//! Rot: bits of one machine's rows flip while it is off.
//!
//! Rule: what is damaged is never shown, reads go on without it, and within a scrub period it is as it was, made anew from the
//! other replicas. Only bits in objects are flipped: what redb itself needs is its checksums' business (tests/it/storage).

use std::time::Duration;

use shoal_protocol::client::Get;
use shoal_protocol::object::Object;

use super::Sim;
use super::ending::figure;
use super::faults::Act;

impl Sim {
    /// `objects` are what all replicas hold.
    pub(super) fn rot(&mut self, objects: &[Object]) {
        let node = self.world.dice.index(self.world.nodes());
        self.world.act(Act::Halt(node));
        let rotten: usize = objects.iter().filter(|object| self.world.rot(node, object)).count();
        self.world.act(Act::Boot(node));
        if !self.wait_until_serving() {
            return;
        }
        for (key, object) in objects.iter().enumerate() {
            let get = Get { place: self.history.keys[key].place.clone(), r: None, min_ctx: None };
            let Some((get, got)) = self.read_patiently(get) else { return };
            let floor = self.history.floor(key, get.r);
            if self.history.got(&mut self.world, key, (&get, &floor), &got) != *object {
                self.world.find("rot", format!("{:?} is shown as another", self.history.keys[key].place));
            }
        }
        self.run_for(Duration::from_secs(self.scenario.scrub_period_s as u64) + HEAL_MAX);
        for (key, held) in self.compare_replicas().into_iter().enumerate() {
            if held.is_some_and(|held| held != objects[key]) {
                self.world.find("rot", format!("{:?} is another afterwards", self.history.keys[key].place));
            }
        }
        let Some(status) = self.world.status(node) else { return };
        let (damaged, healed) = (figure(&status, "damaged_rows"), figure(&status, "repair_keys_scrub"));
        if damaged > 0 || healed < rotten as u64 {
            self.world.find("rot", format!("of {rotten} rows {healed} were healed, {damaged} are damaged"));
        }
        (0..rotten).for_each(|_| self.world.count("rows rotten"));
    }
}

/// A round of questions, a sync, and what a pause between two tries takes.
const HEAL_MAX: Duration = Duration::from_secs(10);
