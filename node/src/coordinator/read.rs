//! Reading one object: R replies, merged; then repair of those that were behind.
//!
//! Shape: a coordinator that is a replica asks itself first and the others with its digest, answered `Same` or the object;
//! further replicas are asked after the hedge delay, when one is lost, or while `min_ctx` is not covered. Whoever replied
//! something older than the merge gets the merge (read repair, Dynamo §5). Source: DESIGN §6.
//! Invariant: an answer covers R distinct replicas' synced state, or says that it does not.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::address::Place;
use shoal_protocol::causality::{Context, EncodedContext};
use shoal_protocol::client::{ClientResponse, Get, Got};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{NodeId, Partition};
use shoal_protocol::object::{Conflict, Digest, Object};
use shoal_protocol::peer::{ApplyCause, PeerRequest, PeerResponse, Refusal};

use super::quorum::{Tally, Verdict};
use super::{Cx, Step, Surroundings, VIEW_RETRY, door};

/// One read in flight.
#[derive(Debug)]
pub(crate) struct Read {
    place: Place,
    conflict: Conflict,
    min_ctx: Option<Context>,
    partition: Partition,
    r: Option<u8>,
    weak: bool,
    primaries_count: usize,
    /// Not asked yet, in the order to ask.
    candidates: Vec<NodeId>,
    /// Asked, no answer yet; with the digest sent along.
    waiting: BTreeMap<NodeId, Option<Digest>>,
    /// Refused only because views differ: to be asked again.
    behind: BTreeSet<NodeId>,
    replies: BTreeMap<NodeId, Digest>,
    /// What this node's own replica showed: the others need not send the same again.
    have: Option<Digest>,
    merged: Object,
    /// What repliers hold, once they differ: by digest.
    shown: Vec<(Digest, Object)>,
    tally: Tally,
    answered: bool,
}

impl Read {
    pub(crate) fn new(around: Surroundings<'_>, get: Get) -> Result<Self, RequestError> {
        let info = door::keyspace(around, get.place.keyspace)?;
        let partition = door::place(info, &get.place)?;
        let (mut tally, weak) = door::quorum(around.rings, partition, get.r, |numbers| numbers.r)?;
        let min_ctx = get.min_ctx.map(|context| door::open(around, &get.place, &context)).transpose()?;
        let primaries = around.rings.owners(partition);
        let is_catching_up = |node: &&NodeId| around.replaced.contains_key(*node);
        let (replied, needed) = tally.reach(|node| around.alive.contains(node) && !is_catching_up(&node));
        if replied < needed {
            return Err(RequestError::Unavailable { replied, needed });
        }
        primaries.iter().filter(is_catching_up).for_each(|node| tally.lose(*node));
        Ok(Self {
            conflict: info.spec.conflict,
            min_ctx,
            partition,
            r: get.r,
            weak,
            primaries_count: primaries.len(),
            tally,
            candidates: order(around, &get.place, primaries),
            place: get.place,
            waiting: BTreeMap::new(),
            behind: BTreeSet::new(),
            replies: BTreeMap::new(),
            have: None,
            merged: Object::default(),
            shown: Vec::new(),
            answered: false,
        })
    }

    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.candidates.first() == Some(&cx.around.me) {
            self.ask_next(cx);
        } else {
            self.ask_enough(cx);
        }
        cx.wake_at(cx.around.now.instant + cx.hedge_delay);
        Step::Pending
    }

    /// Other layouts are active now: their quorums are needed as well. What was replied stands: it was so after this began.
    pub(crate) fn view_changed(&mut self, cx: &mut Cx<'_>) {
        if self.answered {
            return;
        }
        if let Ok((tally, _)) = door::quorum(cx.around.rings, self.partition, self.r, |numbers| numbers.r) {
            self.tally.also(tally);
        }
        let owners = cx.around.rings.owners(self.partition);
        self.primaries_count = self.primaries_count.max(owners.len());
        for node in order(cx.around, &self.place, owners) {
            let is_known = self.replies.contains_key(&node)
                || self.waiting.contains_key(&node)
                || self.behind.contains(&node)
                || self.candidates.contains(&node);
            if !is_known {
                self.candidates.push(node);
            }
        }
        self.ask_enough(cx);
    }

    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, response: PeerResponse) -> Step {
        let asked_with = self.waiting.remove(&from).flatten();
        match response {
            PeerResponse::State { object, digest } => match Object::decode(&object) {
                Ok(object) => {
                    self.merge(object, digest);
                    self.reply(cx, from, digest)
                }
                Err(_) => self.lost(cx, from),
            },
            PeerResponse::Same => match asked_with {
                Some(digest) => self.reply(cx, from, digest),
                None => self.lost(cx, from),
            },
            PeerResponse::Refused(Refusal::UnknownView) => {
                cx.exchange(from);
                self.behind.insert(from);
                cx.wake_at(cx.around.now.instant + VIEW_RETRY);
                Step::Pending
            }
            PeerResponse::Refused(Refusal::Request(error)) => self.answer(Err(error)),
            PeerResponse::Refused(_)
            | PeerResponse::Admitted
            | PeerResponse::Applied(_)
            | PeerResponse::Minted { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::System { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => self.lost(cx, from),
        }
    }

    /// `node` will not answer.
    pub(crate) fn lost(&mut self, cx: &mut Cx<'_>, node: NodeId) -> Step {
        self.waiting.remove(&node);
        self.behind.remove(&node);
        self.tally.lose(node);
        if self.answered {
            return Step::Pending;
        }
        self.ask_enough(cx);
        self.decide(cx)
    }

    /// The hedge delay, or a view retry, is over.
    pub(crate) fn woken(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.answered {
            return Step::Pending;
        }
        for node in std::mem::take(&mut self.behind) {
            self.ask(cx, node);
        }
        self.ask_next(cx);
        if !self.candidates.is_empty() {
            cx.wake_at(cx.around.now.instant + cx.hedge_delay);
        }
        Step::Pending
    }

    /// The deadline.
    pub(crate) fn expired(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.answered {
            return Step::Pending;
        }
        self.repair(cx);
        if self.tally.verdict() == Verdict::Reached {
            return self.answer(Err(RequestError::Stale { object: self.merged.encode() }));
        }
        let (replied, needed) = (self.tally.answered_count(), self.tally.needed());
        self.answer(Err(RequestError::Unavailable { replied, needed }))
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.answered && self.waiting.is_empty()
    }

    /// Joins what a replica showed; keeps what each showed as soon as two differ.
    fn merge(&mut self, object: Object, digest: Digest) {
        let Some(first) = self.replies.values().next().copied() else {
            self.merged = object;
            return;
        };
        if self.shown.is_empty() && digest != first {
            self.shown.push((first, self.merged.clone()));
        }
        if digest != first && self.shown.iter().all(|(known, _)| *known != digest) {
            self.merged.merge_into(&object);
            self.shown.push((digest, object));
        }
    }

    fn reply(&mut self, cx: &mut Cx<'_>, from: NodeId, digest: Digest) -> Step {
        self.replies.insert(from, digest);
        self.tally.answer(from);
        if self.answered {
            self.repair(cx);
            return Step::Pending;
        }
        if from == cx.around.me {
            self.have = Some(digest);
            self.ask_enough(cx);
        }
        self.decide(cx)
    }

    fn decide(&mut self, cx: &mut Cx<'_>) -> Step {
        match self.tally.verdict() {
            Verdict::Pending => Step::Pending,
            Verdict::Impossible => {
                let (replied, needed) = (self.tally.answered_count(), self.tally.needed());
                self.answer(Err(RequestError::Unavailable { replied, needed }))
            }
            Verdict::Reached if !self.covers_min_ctx() => {
                while self.ask_next(cx) {}
                if self.waiting.is_empty() && self.behind.is_empty() {
                    self.repair(cx);
                    let object = self.merged.encode();
                    let all = self.replies.len() == self.primaries_count;
                    self.answer(Err(if all {
                        RequestError::ContextLost { object }
                    } else {
                        RequestError::Stale { object }
                    }))
                } else {
                    Step::Pending
                }
            }
            Verdict::Reached => {
                self.repair(cx);
                let got = self.got(cx);
                self.answer(Ok(ClientResponse::Got(got)))
            }
        }
    }

    fn got(&self, cx: &Cx<'_>) -> Got {
        Got {
            object: self.merged.encode(),
            context: EncodedContext::seal(cx.around.context_keys, &self.place, self.merged.context()),
            replies: self.tally.answered_count(),
            weak: self.weak,
        }
    }

    fn answer(&mut self, result: Result<ClientResponse, RequestError>) -> Step {
        self.answered = true;
        Step::Answer(result)
    }

    fn covers_min_ctx(&self) -> bool {
        self.min_ctx.as_ref().is_none_or(|min| self.merged.context().covers_all(min))
    }

    /// Sends every replier that showed less what it lacks of the merge.
    fn repair(&mut self, cx: &mut Cx<'_>) {
        if self.conflict == Conflict::Lww {
            self.merged.prune_lww();
        }
        let first = self.replies.values().next().copied();
        if self.replies.values().all(|digest| Some(*digest) == first) {
            return;
        }
        let digest = self.merged.digest(cx.around.digest_key, &self.place);
        for (node, shown) in &mut self.replies {
            if *shown != digest {
                let held = self.shown.iter().find(|(known, _)| known == shown);
                let delta = held.map_or_else(|| self.merged.clone(), |(_, held)| self.merged.delta_for(held)).encode();
                *shown = digest;
                let place = self.place.clone();
                cx.tell(*node, PeerRequest::Apply { place, delta, cause: ApplyCause::ReadRepair, compact_epoch: 0 });
            }
        }
        if self.shown.iter().all(|(known, _)| *known != digest) {
            self.shown.push((digest, self.merged.clone()));
        }
    }

    /// Asks as many as the quorum still lacks.
    fn ask_enough(&mut self, cx: &mut Cx<'_>) {
        loop {
            let Self { replies, waiting, behind, .. } = &*self;
            let is_coming =
                |node: &NodeId| replies.contains_key(node) || waiting.contains_key(node) || behind.contains(node);
            let helps = |node: &NodeId| self.tally.lacks(*node, is_coming);
            let Some(at) = self.candidates.iter().position(helps) else { return };
            let node = self.candidates.remove(at);
            self.ask_if_alive(cx, node);
        }
    }

    fn ask_next(&mut self, cx: &mut Cx<'_>) -> bool {
        while !self.candidates.is_empty() {
            let node = self.candidates.remove(0);
            if self.ask_if_alive(cx, node) {
                return true;
            }
        }
        false
    }

    fn ask_if_alive(&mut self, cx: &mut Cx<'_>, node: NodeId) -> bool {
        let is_alive = cx.around.alive.contains(&node);
        if is_alive {
            self.ask(cx, node);
        } else {
            self.tally.lose(node);
        }
        is_alive
    }

    fn ask(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        self.waiting.insert(node, self.have);
        cx.ask(node, PeerRequest::Get { place: self.place.clone(), have: self.have });
    }
}

/// The order to ask replicas in: this node first if it is one, the others from a point that differs by key, those that are
/// suspected last; those that are catching up not at all.
fn order(around: Surroundings<'_>, place: &Place, mut primaries: Vec<NodeId>) -> Vec<NodeId> {
    let turn = usize::from(place.key.last().copied().unwrap_or(0)) % primaries.len().max(1);
    primaries.rotate_left(turn);
    primaries.retain(|node| !around.replaced.contains_key(node));
    primaries.sort_by_key(|node| (around.suspects.contains(node), *node != around.me));
    primaries
}
