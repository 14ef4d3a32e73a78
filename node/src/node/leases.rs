//! Leases of dots: those this node mints under, and those it has seen others mint under.
//!
//! A dot lease is durable before it is used, and used only once a majority of the layout's members, this one included, have made
//! it durable, too, and all that can be asked were: they have then seen no further lease of this store, nor the same one from
//! another process. So a data directory that was restored from an older copy, or that a second process runs on a copy of, is
//! found out before it mints a dot twice, by any member that can be asked and has seen more, and goes on as a new incarnation.
//! Source: DESIGN §4 (Actors); what this does not find out is in docs/decisions/0016.
//! Shape of the blob: a version byte, then the furthest lease seen of each store with the process that had it, in order.
//! Invariants: an answer leaves only when what it says is durable here; what was seen of a store only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_protocol::codec;
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::member::StoreLease;
use shoal_protocol::peer::{LeaseSeen, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::time::{Instant, Now};

use super::{Effect, LinkId, Node, replica_work};
use crate::storage::{CellId, PersistTicket};

/// What was seen of others' leases, and the question about this node's own.
#[derive(Debug, Default)]
pub(super) struct Leases {
    seen: BTreeMap<Actor, LeaseSeen>,
    /// The write under way.
    writing: Option<PersistTicket>,
    /// Whether something was seen since it began.
    is_behind: bool,
    /// Who waits for what to be durable: by this write, or by the next.
    waiting: Vec<(Asker, Written)>,
    question: Option<Question>,
    /// Whether the leases of this process were confirmed once: its data directory is no older copy.
    is_proven: bool,
}

/// Who asked, about which stores.
#[derive(Debug)]
struct Asker {
    link: LinkId,
    request: RequestId,
    stores: Vec<Actor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// With the write under way.
    Now,
    /// With the one after it.
    Next,
}

/// What the others are asked about this node's stores.
#[derive(Debug)]
struct Question {
    stores: BTreeMap<CellId, StoreLease>,
    confirmed_by: BTreeSet<NodeId>,
    asked: BTreeMap<RequestId, NodeId>,
    /// Who has not answered until then is asked again.
    again_at: Instant,
    is_answered: bool,
}

/// What was seen of leases cannot be read: it is damaged, or a newer version wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leases seen: {reason}")]
pub struct LeasesError {
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Stored(Vec<LeaseSeen>);

impl Leases {
    /// What a store holds that kept `stored` (`None`: nothing was ever seen).
    pub(super) fn open(stored: Option<&[u8]>) -> Result<Self, LeasesError> {
        let damaged = |reason: String| LeasesError { reason };
        let Some(stored) = stored else { return Ok(Self::default()) };
        let (&version, body) = stored.split_first().ok_or_else(|| damaged("empty".into()))?;
        if version != VERSION {
            return Err(damaged(format!("version {version}; this build knows {VERSION}")));
        }
        let Stored(entries) = codec::decode(body).map_err(|error| damaged(error.to_string()))?;
        let seen = entries.into_iter().map(|seen| (seen.store.incarnation, seen)).collect();
        Ok(Self { seen, ..Self::default() })
    }

    fn bytes(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&codec::encode(&Stored(self.seen.values().copied().collect())));
        bytes.into()
    }

    /// Notes leases of a process; `None` when there is no room for them.
    fn note(&mut self, stores: &[StoreLease], boot_nonce: u64) -> Option<()> {
        let new = stores.iter().filter(|store| !self.seen.contains_key(&store.incarnation)).count();
        if self.seen.len() + new > SEEN_COUNT_MAX {
            return None;
        }
        for &store in stores {
            let is_further =
                self.seen.get(&store.incarnation).is_none_or(|seen| seen.store.lease_end < store.lease_end);
            if is_further {
                self.seen.insert(store.incarnation, LeaseSeen { store, boot_nonce });
                self.is_behind = true;
            }
        }
        Some(())
    }

    fn seen(&self, stores: &[Actor]) -> PeerResponse {
        PeerResponse::Leases { seen: stores.iter().filter_map(|store| self.seen.get(store)).copied().collect() }
    }

    /// Whether nobody has seen the stores of this process further on than they are: else data may be missing from them that was
    /// acknowledged under their incarnations.
    pub(super) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// A member will not answer.
    pub(super) fn lose(&mut self, node: NodeId) {
        if let Some(question) = &mut self.question {
            question.asked.retain(|_, asked| *asked != node);
            // It may come back without what it noted.
            question.confirmed_by.remove(&node);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.question.as_ref().filter(|question| !question.is_answered).map(|question| question.again_at)
    }
}

impl Node {
    /// Another node asks whether it may mint under these leases.
    pub(super) fn leases_asked(
        &mut self,
        (link, request): (LinkId, RequestId),
        (stores, boot_nonce): (Vec<StoreLease>, u64),
        out: &mut Vec<Effect>,
    ) {
        let refuse = |why| Effect::AnswerPeer { link, request, response: PeerResponse::Refused(why) };
        if stores.len() > shoal_protocol::member::STORES_COUNT_MAX {
            out.push(refuse(Refusal::Malformed));
            return;
        }
        if !self.cells.home().store().is_serving() {
            out.push(refuse(Refusal::Storage));
            return;
        }
        if self.leases.note(&stores, boot_nonce).is_none() {
            tracing::error!(limit = SEEN_COUNT_MAX, "more stores than this node can keep in mind");
            out.push(refuse(Refusal::Overloaded));
            return;
        }
        let stores = stores.into_iter().map(|store| store.incarnation).collect();
        let written = if self.leases.is_behind { Written::Next } else { Written::Now };
        self.leases.waiting.push((Asker { link, request, stores }, written));
        if self.leases.writing.is_none() {
            self.write_leases(out);
        }
    }

    /// Writes what was seen; with nothing to write everybody has their answer.
    fn write_leases(&mut self, out: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.leases.is_behind) {
            for (Asker { link, request, stores }, _) in std::mem::take(&mut self.leases.waiting) {
                out.push(Effect::AnswerPeer { link, request, response: self.leases.seen(&stores) });
            }
            return;
        }
        self.leases.waiting.iter_mut().for_each(|(_, written)| *written = Written::Now);
        let mut effects = Vec::new();
        let bytes = self.leases.bytes();
        let ticket = self.cells.home_store().persist(LEASES_BLOB, bytes, &mut effects);
        self.leases.writing = Some(ticket);
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell: CellId::HOME, effect }));
    }

    /// A blob is durable; perhaps what was seen of leases.
    pub(super) fn leases_persisted(&mut self, ticket: PersistTicket, out: &mut Vec<Effect>) {
        if self.leases.writing.take_if(|open| *open == ticket).is_none() {
            return;
        }
        let (now, next) = std::mem::take(&mut self.leases.waiting).into_iter().partition(|(_, w)| *w == Written::Now);
        self.leases.waiting = next;
        let now: Vec<(Asker, Written)> = now;
        for (Asker { link, request, stores }, _) in now {
            out.push(Effect::AnswerPeer { link, request, response: self.leases.seen(&stores) });
        }
        if self.leases.is_behind {
            self.write_leases(out);
        }
    }

    /// The home store was reopened: a write under way may be lost.
    pub(super) fn write_leases_again(&mut self, out: &mut Vec<Effect>) {
        if self.leases.writing.take().is_some() {
            self.leases.is_behind = true;
            self.write_leases(out);
        }
    }

    /// Asks the layout's members to confirm this node's leases: those that were not asked yet, or not about these.
    pub(super) fn confirm_leases(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(layout) = self.rings.as_ref().map(|rings| rings.target().layout()) else { return };
        let cells = self.cells.iter().filter_map(|(cell, replica)| Some((cell, replica.store().lease_to_confirm()?)));
        let stores: BTreeMap<CellId, StoreLease> = cells.collect();
        if stores.is_empty() || !self.renewing.is_empty() {
            // A lease that becomes durable asks anew.
            self.leases.question = None;
            return;
        }
        let me = self.config.node;
        let members: Vec<NodeId> = layout.members().iter().copied().filter(|node| *node != me).collect();
        let question = self.leases.question.take().filter(|question| question.stores == stores);
        let mut question = question.unwrap_or_else(|| Question {
            stores,
            confirmed_by: BTreeSet::from([me]),
            asked: BTreeMap::new(),
            again_at: now.instant,
            is_answered: false,
        });
        question.again_at = now.instant + ANSWER_WITHIN;
        for to in members {
            let is_asked = question.confirmed_by.contains(&to) || question.asked.values().any(|asked| *asked == to);
            if self.alive.contains(&to) && !is_asked {
                let id = self.system_calls.fresh();
                let stores = question.stores.values().copied().collect();
                let ask = PeerRequest::ConfirmLeases { stores, boot_nonce: self.config.boot_nonce };
                question.asked.insert(id, to);
                out.push(self.call(to, id, (ANSWER_WITHIN, ask)));
            }
        }
        self.leases.question = Some(question);
        self.count_confirmations(now, out);
    }

    /// Time passes: who has not answered is asked again.
    pub(super) fn confirm_leases_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.leases.next_deadline().is_some_and(|at| at <= now.instant) {
            self.count_confirmations(now, out);
            if let Some(question) = &mut self.leases.question {
                question.asked.clear();
            }
            self.confirm_leases(now, out);
        }
    }

    /// A peer answers; whether it answers a question about leases.
    pub(super) fn leases_answered(
        &mut self,
        now: Now,
        from: NodeId,
        (id, response): (RequestId, &PeerResponse),
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(question) = &mut self.leases.question else { return false };
        if question.asked.get(&id) != Some(&from) {
            return false;
        }
        // Otherwise refused: it stays asked until it is asked again.
        if let PeerResponse::Leases { seen } = response {
            question.asked.remove(&id);
            let own = self.config.boot_nonce;
            let is_used = |store: &StoreLease| {
                let same = |seen: &&LeaseSeen| seen.store.incarnation == store.incarnation;
                let seen = seen.iter().find(same);
                seen.is_some_and(|seen| seen.boot_nonce != own && seen.store.lease_end >= store.lease_end)
            };
            let used: Vec<CellId> =
                question.stores.iter().filter(|(_, store)| is_used(store)).map(|(cell, _)| *cell).collect();
            if used.is_empty() && seen.len() == question.stores.len() {
                question.confirmed_by.insert(from);
            }
            if used.is_empty() {
                self.count_confirmations(now, out);
            } else {
                self.leases.question = None;
                self.found_older(&used, from, out);
            }
        }
        true
    }

    /// Others saw these stores further on than they are: the directory is an older copy, or a second process runs on one.
    fn found_older(&mut self, cells: &[CellId], witness: NodeId, out: &mut Vec<Effect>) {
        for &cell in cells {
            let store = self.place(cell);
            tracing::error!(%store, %witness, "a store is older than what others have seen of it: a restored or copied directory");
            self.begin_incarnation(cell, out);
        }
    }

    fn count_confirmations(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(layout) = self.rings.as_ref().map(|rings| rings.target().layout()) else { return };
        let Some(question) = &mut self.leases.question else { return };
        let confirmed = question.confirmed_by.iter().filter(|node| layout.lists(**node)).count();
        // Whoever can be asked is heard, or had time enough: one that has seen more need not be among the first.
        let is_heard = question.asked.is_empty() || question.again_at <= now.instant;
        if question.is_answered || !is_heard || confirmed < layout.majority() {
            return;
        }
        question.is_answered = true;
        self.leases.is_proven = true;
        for (cell, store) in question.stores.clone() {
            let mut effects = Vec::new();
            self.cells.get_mut(cell).lease_confirmed(now, store, &mut effects);
            self.route(now, replica_work(cell, effects), out);
        }
    }
}

/// The name of the blob that holds what was seen.
pub(super) const LEASES_BLOB: &str = "leases";
/// Format of the blob.
const VERSION: u8 = 1;
/// Stores kept in mind, of all nodes and all times; guess, above a thousand nodes of sixteen stores replaced four times.
const SEEN_COUNT_MAX: usize = 65_536;
/// A confirmation is one round trip and one sync.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(incarnation: u64, lease_end: u64) -> StoreLease {
        StoreLease { incarnation: Actor(incarnation), lease_end }
    }

    fn seen(leases: &Leases, incarnation: u64) -> LeaseSeen {
        leases.seen[&Actor(incarnation)]
    }

    #[test]
    fn the_furthest_lease_is_kept_and_of_equals_the_first() {
        let mut leases = Leases::default();
        leases.note(&[lease(1, 100), lease(2, 50)], 7).unwrap();
        assert!(std::mem::take(&mut leases.is_behind));
        leases.note(&[lease(1, 100), lease(2, 40)], 8).unwrap();
        assert!(!leases.is_behind, "nothing new");
        assert_eq!(seen(&leases, 1), LeaseSeen { store: lease(1, 100), boot_nonce: 7 });
        assert_eq!(seen(&leases, 2), LeaseSeen { store: lease(2, 50), boot_nonce: 7 });
        leases.note(&[lease(1, 200)], 8).unwrap();
        assert_eq!(seen(&leases, 1), LeaseSeen { store: lease(1, 200), boot_nonce: 8 });
        assert!(leases.is_behind);
    }

    #[test]
    fn what_was_seen_survives_its_blob_and_a_damaged_one_is_refused() {
        let mut leases = Leases::default();
        leases.note(&[lease(9, 100), lease(2, 50)], 7).unwrap();
        let bytes = leases.bytes();
        let again = Leases::open(Some(&bytes)).unwrap();
        assert_eq!(again.seen, leases.seen);
        assert!(Leases::open(None).unwrap().seen.is_empty());
        for damaged in [&[][..], &[9], &bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()] {
            Leases::open(Some(damaged)).unwrap_err();
        }
    }

    #[test]
    fn more_stores_than_the_limit_are_not_noted() {
        let mut leases = Leases::default();
        for n in 0..SEEN_COUNT_MAX as u64 {
            leases.note(&[lease(n, 1)], 7).unwrap();
        }
        assert!(leases.note(&[lease(u64::MAX, 1)], 7).is_none());
        // Those that are kept in mind go on.
        leases.note(&[lease(5, 2)], 7).unwrap();
    }
}
