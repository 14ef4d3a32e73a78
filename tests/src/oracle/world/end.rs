//! The end of a history: faults stop, everyone exchanges everything, and the promises are checked.

use shoal_protocol::object::Object;

use crate::oracle::ledger::State;
use crate::oracle::session::Verdict;
use crate::oracle::world::{Message, World};
use crate::oracle::{Fault, Profile};

impl World {
    pub(super) fn end(&mut self) {
        if self.dice.chance(50) {
            for message in std::mem::take(&mut self.network) {
                if !matches!(message, Message::Request { .. }) {
                    self.receive(message);
                }
            }
        }
        for at in 0..self.replicas.len() {
            self.sync(at);
        }
        for _ in 0..2 {
            for from in 0..self.replicas.len() {
                for to in (0..self.replicas.len()).filter(|to| *to != from) {
                    let state = self.replicas[from].live.clone();
                    self.take(to, &state);
                }
            }
        }
        let last = self.replicas[0].live.clone();
        if self.replicas.iter().any(|replica| replica.live.object != last.object) {
            self.find(Fault::Diverged, "after everyone exchanged everything".into());
        }
        self.check_canonical(&last);
        self.check_verdicts(&last);
        if self.profile == Profile::LwwRightClocks {
            self.check_winner(&last);
        }
    }

    /// The deltas in any order, in any grouping, make the same bytes. A pruning is in no delta.
    fn check_canonical(&mut self, last: &State) {
        let bytes = last.object.encode();
        if Object::decode(&bytes).as_ref() != Ok(&last.object) {
            self.find(Fault::NotCanonical, "the final state does not survive decoding".into());
        }
        let mut bindings: Vec<usize> = last.history.iter().collect();
        if bindings.iter().any(|binding| self.ledger.bindings[*binding].op.is_none()) {
            return;
        }
        self.dice.shuffle(&mut bindings);
        let (left, right) = bindings.split_at(bindings.len() / 2);
        let joined = |part: &[usize]| {
            let mut object = Object::default();
            for binding in part {
                object.merge_into(&self.ledger.bindings[*binding].delta);
            }
            object
        };
        let (mut left, right) = (joined(left), joined(right));
        left.merge_into(&right);
        if left != last.object || left.encode() != bytes {
            self.find(Fault::NotCanonical, "its deltas in another order are another state".into());
        }
    }

    fn check_verdicts(&mut self, last: &State) {
        let (present, replaced) = (self.ledger.present(last.history), self.ledger.replaced(last.history));
        for op in 0..self.courses.len() {
            let replaces = self.ledger.bindings[self.courses[op].binding].replaces;
            match self.courses[op].verdict {
                Verdict::Acked { .. } if !present.has(op) && !replaced.has(op) => {
                    self.find(Fault::AckedLost, format!("op{op}"));
                }
                Verdict::Acked { .. } if !(replaces & (present - replaced)).is_empty() => {
                    self.find(Fault::ReplacedIsBack, format!("by op{op}"));
                }
                Verdict::Refused if present.has(op) => self.find(Fault::RefusedCounted, format!("op{op}")),
                Verdict::Open | Verdict::Acked { .. } | Verdict::Refused => {}
            }
        }
    }

    fn check_winner(&mut self, last: &State) {
        let live = self.ledger.present(last.history) - self.ledger.replaced(last.history);
        let Some(winner) = live.iter().max_by_key(|op| (self.ledger.facts[*op].hlc, self.ledger.facts[*op].dot)) else {
            return;
        };
        let Verdict::Acked { at: settled } = self.courses[winner].verdict else { return };
        for op in 0..self.courses.len() {
            let course = &self.courses[op];
            if matches!(course.verdict, Verdict::Acked { .. }) && settled < course.invoked_at {
                self.find(Fault::StaleWinner, format!("op{winner} wins over the later op{op}"));
            }
        }
    }
}
