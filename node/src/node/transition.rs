//! This node's part in getting from one layout to the next, and in catching up after a loss.
//!
//! Shape: whenever views, links or pulls have changed, `advance_transition` looks at what is durable and does what follows: it
//! attests that this store knows the active layouts, says whom to pull what from, attests that it has pulled enough, asks to
//! be named by a layout once it has caught up, and retires an older layout of which nothing is held alone any more.
//! Two reasons to pull a partition: it *comes in* from an older layout (P of that one's holders, this node among them if it is
//! one, each fenced); or this store is not the one that an active layout names (P other holders of that layout, each having met
//! this store). Source: DESIGN §5 (numbers, catching up, progress); `ring::transition` for who and how many.
//! Invariants: what was pulled toward one target says nothing about another; evidence is given only of what is durable.

use std::collections::{BTreeMap, BTreeSet};

use shoal_gossip::Input as GossipInput;
use shoal_protocol::id::{Class, LayoutId, NodeId, PARTITIONS_COUNT, Partition};
use shoal_protocol::layout::{Layout, NodeState, StoreMark};
use shoal_protocol::member::Liveness;
use shoal_protocol::time::Now;

use super::{Effect, Node};
use crate::repair::RepairInput;
use crate::ring::{Evidence, Ring, Rings, Step};
use crate::system::{Fenced, Synced, SystemInput};

/// How far the pulls are.
#[derive(Debug, Default)]
pub(super) struct Transition {
    /// Which store pulls, and toward which layout.
    goal: Option<(StoreMark, LayoutId)>,
    /// Who was pulled from toward that layout.
    incoming: Pulled,
    /// Who was pulled from by that store, whatever the layout.
    recovered: Pulled,
    /// Whether there is something to look at again, once the input at hand is dealt with.
    pub(super) is_due: bool,
    /// Peers that this store had met when this was last looked at.
    met_count: usize,
    /// Who is to be pulled from.
    pub(super) wanted: BTreeSet<(Partition, NodeId)>,
    /// Layouts that do not name this store, of whose partitions it has everything.
    caught_up: BTreeSet<LayoutId>,
    /// Whether what was lost may have been acknowledged and be nowhere else: with W = 1, all other holders need not have it.
    pub(super) is_lossy: bool,
}

/// From whom partitions were pulled.
type Pulled = BTreeMap<Partition, BTreeSet<NodeId>>;

/// Where a partition is to be pulled from: so many of these.
struct Pull {
    partition: Partition,
    sources: Vec<NodeId>,
    needed: usize,
}

impl Pull {
    fn is_from(&self, pulled: &Pulled, node: NodeId) -> bool {
        pulled.get(&self.partition).is_some_and(|from| from.contains(&node))
    }

    /// How many it still takes.
    fn missing(&self, pulled: &Pulled) -> usize {
        let done = self.sources.iter().filter(|node| self.is_from(pulled, **node)).count();
        self.needed.saturating_sub(done)
    }
}

impl Transition {
    /// Pulls that are under way, and all that were since the target is what it is.
    pub(super) fn counts(&self) -> (u64, u64) {
        let done: usize = self.incoming.values().map(BTreeSet::len).sum();
        (self.wanted.len() as u64, (self.wanted.len() + done) as u64)
    }

    /// Whether this store has everything that a layout wants it to hold, although the layout does not name it.
    pub(super) fn has_caught_up(&self, layout: LayoutId) -> bool {
        self.caught_up.contains(&layout)
    }
}

impl Node {
    /// Does what the durable system state and the pulls so far allow.
    pub(super) fn advance_transition(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(rings) = self.rings.clone() else { return };
        let Some(store) = self.system.custody().map(|custody| custody.store()) else { return };
        if !self.renewing.is_empty() {
            return;
        }
        self.aim(now, (store, rings.target().layout().id()), out);
        self.attest_fences(now, &rings, store, out);
        let mut wanted = self.recover(&rings, store);
        let is_behind =
            rings.target().layout().lists(self.config.node) && !rings.target().layout().names(self.config.node, store);
        if wanted.is_empty() && is_behind && self.is_synced() {
            self.tell_system(now, SystemInput::CaughtUp, out);
        }
        for from in rings.older() {
            wanted.extend(self.take_in(now, Step { from, to: rings.target() }, out));
        }
        self.want(now, wanted, out);
        self.retire_layouts(now, &rings, out);
        self.forget_former(now, &rings, out);
    }

    /// What is pulled toward one layout is pulled anew toward another: more may have been written in between.
    fn aim(&mut self, now: Now, goal: (StoreMark, LayoutId), out: &mut Vec<Effect>) {
        if self.transition.goal == Some(goal) {
            return;
        }
        let before = std::mem::take(&mut self.transition);
        self.transition.goal = Some(goal);
        self.transition.is_lossy = before.is_lossy;
        if before.goal.is_some_and(|(store, _)| store == goal.0) {
            self.transition.recovered = before.recovered;
            self.transition.caught_up = before.caught_up;
        }
        // What is wanted again is to begin anew, even if it is done.
        self.repair(now, RepairInput::Wanted { pulls: BTreeSet::new() }, out);
    }

    /// A peer was met perhaps, which changes no state.
    pub(super) fn met(&mut self, now: Now, out: &mut Vec<Effect>) {
        let met_count = self.system.met_count();
        if std::mem::replace(&mut self.transition.met_count, met_count) != met_count {
            self.advance_transition(now, out);
        }
    }

    /// A partition was pulled: everything that was synced there when that began is durable here.
    pub(super) fn pulled(&mut self, partition: Partition, from: NodeId) {
        if self.transition.wanted.contains(&(partition, from)) {
            self.transition.incoming.entry(partition).or_default().insert(from);
            self.transition.recovered.entry(partition).or_default().insert(from);
            self.transition.is_due = true;
        }
    }

    /// Says of the active layouts that this store knows them, when there are several. A store that is new under its node's
    /// name has to know first what the one before it may have promised.
    fn attest_fences(&mut self, now: Now, rings: &Rings, mark: StoreMark, out: &mut Vec<Effect>) {
        let (me, store) = (self.config.node, mark.incarnation);
        let fenced = self.system.state().fenced();
        let layouts: Vec<LayoutId> =
            rings.ids().filter(|&layout| !fenced.contains(&Fenced { store, layout })).collect();
        if rings.older().is_empty() || layouts.is_empty() || !rings.lists(me) {
            return;
        }
        let has_met = |ring: &Ring| {
            let layout = ring.layout();
            let is_known = !layout.lists(me) || layout.names(me, mark);
            let has_rejoined = self.system.state().has_rejoined(store);
            is_known || has_rejoined && self.held(ring).all(|partition| self.has_met_enough(ring, partition))
        };
        if rings.iter().all(has_met) {
            self.tell_system(now, SystemInput::Fenced { layouts }, out);
        }
    }

    /// Whom to pull from because an earlier store of this node is gone. Notes of which layouts everything is here again.
    fn recover(&mut self, rings: &Rings, store: StoreMark) -> BTreeSet<(Partition, NodeId)> {
        let me = self.config.node;
        let mut wanted = BTreeSet::new();
        // Before that there may be keyspaces of which it has not heard.
        if !self.system.state().has_rejoined(store.incarnation) {
            return wanted;
        }
        for ring in rings.iter() {
            let layout = ring.layout();
            if !layout.lists(me) || layout.names(me, store) || self.transition.has_caught_up(layout.id()) {
                continue;
            }
            let missing = |pull: &Pull| pull.missing(&self.transition.recovered) > 0;
            let pulls: Vec<Pull> = self.lost(ring).filter(missing).collect();
            wanted.extend(pulls.iter().flat_map(|pull| self.choose(pull, &self.transition.recovered)));
            if pulls.is_empty() {
                let numbers = |class| ring.numbers(class);
                let is_lossy = self.classes().into_iter().map(numbers).any(|n| n.pulls() > n.pulls_of_others());
                self.transition.is_lossy |= is_lossy;
                self.transition.caught_up.insert(layout.id());
                tracing::info!(layout = %layout.id(), is_lossy, "caught up: everything that others hold is here again");
            }
        }
        wanted
    }

    /// What to pull of a layout under which an earlier store of this node held it.
    fn lost<'a>(&'a self, ring: &'a Ring) -> impl Iterator<Item = Pull> + 'a {
        self.held(ring).map(|partition| {
            let holders = ring.preference(partition).primaries.iter().copied();
            Pull {
                partition,
                needed: ring.numbers(partition.class).pulls_of_others().min(self.others_left(ring, partition)),
                sources: holders.filter(|node| *node != self.config.node && self.system.has_met(*node)).collect(),
            }
        })
    }

    /// Whom to pull from what comes in from an older layout. Says so, class by class, once that is done.
    fn take_in(&mut self, now: Now, step: Step<'_>, out: &mut Vec<Effect>) -> BTreeSet<(Partition, NodeId)> {
        let (me, store) = (self.config.node, self.incarnation());
        let (from, to) = (step.from.layout().id(), step.to.layout().id());
        let mut wanted = BTreeSet::new();
        if !step.to.layout().lists(me) {
            return wanted;
        }
        for class in self.classes() {
            if self.system.state().synced().contains(&Synced { store, from, to, class }) {
                continue;
            }
            let incoming = step.incoming(class, me).map(|partition| self.incoming(step, partition));
            let missing = |pull: &Pull| pull.missing(&self.transition.incoming) > 0;
            let pulls: Vec<Pull> = incoming.filter(missing).collect();
            wanted.extend(pulls.iter().flat_map(|pull| self.choose(pull, &self.transition.incoming)));
            if pulls.is_empty() {
                self.tell_system(now, SystemInput::Synced { from, to, class }, out);
            }
        }
        wanted
    }

    /// Where a partition that comes in is pulled from.
    fn incoming(&self, step: Step<'_>, partition: Partition) -> Pull {
        let me = self.config.node;
        let layout = step.from.layout();
        let holders = &step.from.preference(partition).primaries;
        // What this node held itself it need not pull, unless it has lost it.
        let is_own = holders.contains(&me) && self.has_all_of(layout);
        let target = step.to.layout().id();
        let is_source =
            |node: &&NodeId| **node != me && self.is_fenced(**node, target) && self.knows_this_store(**node);
        Pull {
            partition,
            sources: holders.iter().filter(is_source).copied().collect(),
            needed: (step.from.numbers(partition.class).pulls() - usize::from(is_own))
                .min(self.others_left(step.from, partition)),
        }
    }

    /// Other holders of a partition that are not gone for ever.
    pub(super) fn others_left(&self, ring: &Ring, partition: Partition) -> usize {
        let holders = ring.preference(partition).primaries.iter();
        let state = self.system.state();
        holders.filter(|node| **node != self.config.node && !state.is_given_up(**node)).count()
    }

    /// Whether this node has everything that a layout wants it to hold.
    fn has_all_of(&self, layout: &Layout) -> bool {
        let named = self.system.custody().is_some_and(|custody| layout.names(self.config.node, custody.store()));
        named || self.transition.has_caught_up(layout.id())
    }

    /// Whether a source may be pulled from by this store: one that took another's place has to be known to it first.
    fn knows_this_store(&self, source: NodeId) -> bool {
        !self.replaced.contains_key(&self.config.node) || self.system.has_met(source)
    }

    /// Whom to ask now for a pull: as many as are missing, those that can be asked and are themselves named first.
    fn choose(&self, pull: &Pull, pulled: &Pulled) -> Vec<(Partition, NodeId)> {
        let mut left: Vec<NodeId> = pull.sources.iter().copied().filter(|node| !pull.is_from(pulled, *node)).collect();
        left.sort_by_key(|node| {
            let keeps = self.transition.wanted.contains(&(pull.partition, *node));
            (!self.alive.contains(node), self.replaced.contains_key(node), self.suspects.contains(node), !keeps)
        });
        left.truncate(pull.missing(pulled));
        left.into_iter().map(|node| (pull.partition, node)).collect()
    }

    /// Whether a node's newest store knows a layout durably.
    fn is_fenced(&self, node: NodeId, layout: LayoutId) -> bool {
        let state = self.system.state();
        let fenced = |store| state.fenced().contains(&Fenced { store, layout });
        state.incarnation(node).is_some_and(fenced)
    }

    fn retire_layouts(&mut self, now: Now, rings: &Rings, out: &mut Vec<Effect>) {
        for from in rings.older() {
            let step = Step { from, to: rings.target() };
            if step.is_over(self.classes(), &self.evidence(step)) {
                let (layout, successor) = (from.layout().id(), rings.target().layout().id());
                tracing::info!(%layout, %successor, "nothing depends on the older layout any more");
                self.tell_system(now, SystemInput::Retire { layout }, out);
            }
        }
    }

    /// What is known of the stores of both layouts' members.
    pub(super) fn evidence(&self, step: Step<'_>) -> Evidence {
        let state = self.system.state();
        let (from, to) = (step.from.layout().id(), step.to.layout().id());
        let members = || step.from.layout().members().iter().chain(step.to.layout().members()).copied();
        let synced = |class: Class| {
            let has_all = move |node: &NodeId| {
                let synced = |store| state.synced().contains(&Synced { store, from, to, class });
                state.incarnation(*node).is_some_and(synced)
            };
            members().filter(has_all).map(move |node| (node, class))
        };
        Evidence {
            fenced: members().filter(|node| self.is_fenced(*node, to)).collect(),
            synced: self.classes().into_iter().flat_map(synced).collect(),
            gone: members().filter(|node| state.is_given_up(*node)).collect(),
        }
    }

    /// The classes of all keyspaces there are or may be.
    fn classes(&self) -> BTreeSet<Class> {
        self.system.state().classes()
    }

    /// The partitions of all classes that this node holds under a layout.
    fn held<'a>(&'a self, ring: &'a Ring) -> impl Iterator<Item = Partition> + 'a {
        let all = self
            .classes()
            .into_iter()
            .flat_map(|class| (0..PARTITIONS_COUNT).map(move |index| Partition { class, index }));
        all.filter(|partition| ring.preference(*partition).is_primary(self.config.node))
    }

    /// Forgets members that gave everything away and are gone.
    pub(super) fn forget_former(&mut self, now: Now, rings: &Rings, out: &mut Vec<Effect>) {
        let intent = rings.target().layout().intent();
        let is_former = |node: &NodeId| {
            let is_leaving = intent.nodes.get(node).is_some_and(|role| role.state == NodeState::Leaving);
            is_leaving && !rings.lists(*node)
        };
        let gone: Vec<NodeId> = self
            .gossip
            .members()
            .filter(|(_, liveness)| matches!(liveness, Liveness::Down | Liveness::Left))
            .map(|(member, _)| member.node)
            .filter(is_former)
            .collect();
        for node in gone {
            self.gossip(now, GossipInput::Forget(node), out);
        }
    }

    /// Makes these the pulls under way.
    fn want(&mut self, now: Now, wanted: BTreeSet<(Partition, NodeId)>, out: &mut Vec<Effect>) {
        let wanted: BTreeSet<_> =
            wanted.into_iter().filter(|(partition, _)| !self.former.is_dropping(*partition)).collect();
        if self.transition.wanted != wanted {
            self.transition.wanted.clone_from(&wanted);
            self.repair(now, RepairInput::Wanted { pulls: wanted }, out);
        }
    }
}
