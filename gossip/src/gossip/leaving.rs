//! Leaving: a few rounds of saying so, each to as many members as an update is told to.
//!
//! Shape: what a node says of itself stands at the head of everything it sends, so a packet without news is enough.
//! Invariants: a node that leaves probes nobody, refutes nothing and still answers; it does not wait for answers.

use std::time::Duration;

use shoal_protocol::time::Instant;

use super::Gossip;
use crate::member::Liveness;
use crate::message::Body;
use crate::output::Output;

/// A node on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    rounds_left: u32,
    next: Instant,
    /// What was sent last is on its way, too.
    is_over: bool,
}

impl Leaving {
    /// When to go on; never, once enough was said.
    pub(super) const fn next_round(&self) -> Option<Instant> {
        if self.is_over { None } else { Some(self.next) }
    }
}

impl Gossip {
    pub(super) fn leave(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.timers.leaving.is_none() {
            self.own.leave();
            self.broadcasts.add(self.own.node(), false);
            self.timers.leaving = Some(Leaving { rounds_left: ROUNDS_COUNT, next: now, is_over: false });
            self.go_on_leaving(now, out);
        }
    }

    pub(super) fn go_on_leaving(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(leaving) = self.timers.leaving.as_mut().filter(|leaving| !leaving.is_over) else { return };
        if leaving.next > now {
            return;
        }
        let is_over = leaving.rounds_left == 0;
        leaving.rounds_left = leaving.rounds_left.saturating_sub(1);
        leaving.next = now + ROUND;
        if is_over {
            leaving.is_over = true;
            out.push(Output::LeaveSpread);
            return;
        }
        let count = self.retransmit_limit() as usize;
        let told = self.roster.choose(&mut self.aside.rng, count, |claim| claim.state == Liveness::Alive);
        for to in &told {
            self.send(*to, &Body::News, out);
        }
        if told.is_empty() {
            self.timers.leaving = Some(Leaving { rounds_left: 0, next: now, is_over: true });
            out.push(Output::LeaveSpread);
        }
    }
}

/// At 30 % loss a packet to each of five others gets through in one of three rounds with 97 %.
const ROUNDS_COUNT: u32 = 3;
/// Between two rounds.
const ROUND: Duration = Duration::from_millis(200);
