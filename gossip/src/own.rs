//! What this node says of itself, and what it answers when others say otherwise.
//!
//! Shape: the incarnation starts at 0 in every process, without being stored. Whoever says something of this node that does
//! not hold is answered with a higher one. What an earlier life of this node (another boot nonce) left behind is answered
//! with one so much higher that nothing else which that life said can reach it; so if the same nonce is heard alive above
//! that, it is no echo: somebody lives and answers as this node does.
//! Invariants: the incarnation never falls; each description has an incarnation of its own.

use shoal_protocol::id::NodeId;

use crate::claim::{Claim, Version};
use crate::member::{Liveness, Member};
use crate::message::{DescriptionBytes, INCARNATION_MAX};

/// This node, as it speaks for itself.
#[derive(Debug)]
pub(crate) struct Own {
    member: Member,
    description: DescriptionBytes,
    state: Liveness,
    incarnation: u64,
    /// Other boot nonces under this id that were answered.
    lives: Vec<Life>,
}

/// Another process that spoke, or speaks, under this node's id.
#[derive(Debug)]
struct Life {
    boot_nonce: u64,
    answered_with: u64,
    is_cloned: bool,
}

/// What a saying about this node leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// It is what this node says, or is outdated.
    Known,
    /// It was wrong; this node now has a higher incarnation, which others are to hear.
    Refuted,
    /// As `Refuted`, and it was this very life that was doubted.
    Doubted,
    /// As `Refuted`, and this is the first sign that the process with this nonce lives.
    Cloned { boot_nonce: u64 },
}

impl Own {
    pub(crate) fn new(member: Member) -> Self {
        let member = member.within_limits();
        let description = DescriptionBytes::of(&member);
        Self { member, description, state: Liveness::Alive, incarnation: 0, lives: Vec::new() }
    }

    pub(crate) const fn member(&self) -> &Member {
        &self.member
    }

    pub(crate) const fn node(&self) -> NodeId {
        self.member.node
    }

    pub(crate) const fn description(&self) -> &DescriptionBytes {
        &self.description
    }

    pub(crate) const fn has_left(&self) -> bool {
        !self.state.is_live()
    }

    pub(crate) fn claim(&self) -> Claim {
        let version = Version {
            incarnation: self.incarnation,
            boot_nonce: self.member.boot_nonce,
            digest: self.description.digest(),
        };
        Claim::new(self.member.node, self.state, version)
    }

    /// This node says this of itself from now on; whether that is new.
    ///
    /// # Panics
    /// When the description is another node's.
    pub(crate) fn describe(&mut self, member: Member) -> bool {
        assert_eq!(member.node, self.member.node, "a node describes itself only");
        let member = member.within_limits();
        let is_new = member != self.member;
        if is_new {
            self.description = DescriptionBytes::of(&member);
            self.member = member;
            self.incarnation += 1;
        }
        is_new
    }

    pub(crate) const fn leave(&mut self) {
        self.state = Liveness::Left;
    }

    /// Somebody says this of this node. A node that left refutes nothing any more.
    pub(crate) fn hear(&mut self, claim: &Claim) -> Echo {
        let heard = claim.version;
        if heard.incarnation < self.incarnation || self.has_left() {
            return Echo::Known;
        }
        if heard.boot_nonce != self.member.boot_nonce {
            return self.hear_other_life(claim);
        }
        if *claim == self.claim() {
            return Echo::Known;
        }
        self.answer(heard.incarnation, 1);
        if claim.state == Liveness::Alive { Echo::Refuted } else { Echo::Doubted }
    }

    fn hear_other_life(&mut self, claim: &Claim) -> Echo {
        let Version { incarnation, boot_nonce, .. } = claim.version;
        self.answer(incarnation, LIFE);
        let answered_with = self.incarnation;
        let Some(life) = self.lives.iter_mut().find(|life| life.boot_nonce == boot_nonce) else {
            // The oldest answer is the one that is least likely to be heard of again.
            if self.lives.len() == LIVES_COUNT_MAX {
                self.lives.remove(0);
            }
            self.lives.push(Life { boot_nonce, answered_with, is_cloned: false });
            return Echo::Refuted;
        };
        let speaks_again = claim.state == Liveness::Alive && incarnation > life.answered_with;
        let is_first_sign = speaks_again && !life.is_cloned;
        life.is_cloned |= speaks_again;
        life.answered_with = answered_with;
        if is_first_sign { Echo::Cloned { boot_nonce } } else { Echo::Refuted }
    }

    /// Goes above an incarnation that was heard. At the bound of the format nothing is above: then nobody can be answered.
    fn answer(&mut self, heard: u64, step: u64) {
        self.incarnation = self.incarnation.max(heard.saturating_add(step).min(INCARNATION_MAX));
    }
}

/// More incarnations than a life has that describes itself anew every second for twelve days.
const LIFE: u64 = 1 << 20;
/// Starts of this node that others may still talk of.
const LIVES_COUNT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::tests::member;

    fn said(own: &Own, state: Liveness, incarnation: u64, boot_nonce: u64) -> Claim {
        let version = Version { incarnation, boot_nonce, digest: own.claim().version.digest };
        Claim::new(own.node(), state, version)
    }

    #[test]
    fn a_doubt_about_this_incarnation_is_refuted_with_the_next_and_an_old_one_is_ignored() {
        let mut own = Own::new(member(1));
        let doubt = Claim::suspect(NodeId(1), own.claim().version, NodeId(2));
        assert_eq!((own.hear(&doubt), own.claim().version.incarnation), (Echo::Doubted, 1));
        assert_eq!((own.hear(&doubt), own.claim().version.incarnation), (Echo::Known, 1));
        assert_eq!(own.hear(&own.claim()), Echo::Known);
    }

    #[test]
    fn an_earlier_life_is_answered_once_and_its_echoes_do_not_count() {
        let mut own = Own::new(member(1));
        let before = said(&own, Liveness::Down, 5, 99);
        assert_eq!((own.hear(&before), own.claim().version.incarnation), (Echo::Refuted, 5 + LIFE));
        // Later news of that life, which reaches this node after the older one.
        let later = said(&own, Liveness::Alive, 900, 99);
        assert_eq!((own.hear(&later), own.claim().version.incarnation), (Echo::Known, 5 + LIFE));
    }

    #[test]
    fn two_living_processes_find_out_and_are_told_once() {
        let mut one = Own::new(member(1));
        let mut other = Own::new(Member { boot_nonce: 2, ..member(1) });
        let mut told = Vec::new();
        for _ in 0..5 {
            told.extend([one.hear(&other.claim()), other.hear(&one.claim())]);
        }
        let signs: Vec<_> = told.into_iter().filter(|echo| matches!(echo, Echo::Cloned { .. })).collect();
        assert_eq!(signs, [Echo::Cloned { boot_nonce: 2 }, Echo::Cloned { boot_nonce: 1 }]);
    }

    #[test]
    fn a_new_description_has_a_new_incarnation() {
        let mut own = Own::new(member(1));
        assert!(!own.describe(member(1)));
        assert!(own.describe(Member { zone: "b".into(), ..member(1) }));
        assert_eq!(own.claim().version.incarnation, 1);
    }

    #[test]
    fn who_left_refutes_nothing() {
        let mut own = Own::new(member(1));
        own.leave();
        let doubt = said(&own, Liveness::Down, 3, 1);
        assert_eq!((own.hear(&doubt), own.claim().state), (Echo::Known, Liveness::Left));
    }

    #[test]
    fn at_the_bound_of_incarnations_nothing_overflows() {
        let mut own = Own::new(member(1));
        own.hear(&said(&own, Liveness::Down, INCARNATION_MAX, 1));
        own.hear(&said(&own, Liveness::Down, INCARNATION_MAX, 99));
        assert_eq!(own.claim().version.incarnation, INCARNATION_MAX);
    }
}
