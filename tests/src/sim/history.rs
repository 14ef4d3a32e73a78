//! What clients asked and were told: all that the checkers know of a history.
//!
//! Shape: per key its writes with their fate, the contexts that acks named (by number of acks), and every context that a
//! read showed. Invariant: written by clients only, from what they sent and received.

use std::collections::BTreeMap;

use shoal_protocol::address::{KeyspaceName, Place};
use shoal_protocol::causality::{Context, Dot, EncodedContext};
use shoal_protocol::client::{Get, Got, KeyspaceLayout, KeyspaceSpec, QuorumMode, Written};
use shoal_protocol::id::KeyspaceId;
use shoal_protocol::object::{Object, Operation};

use super::scenario::{COLLECTION, KeyKind, Scenario};
use super::world::World;

/// The history so far.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Keyspaces, in the order of creation.
    pub(super) spaces: Vec<Space>,
    /// Keys of all keyspaces.
    pub(super) keys: Vec<Key>,
    values: u64,
}

/// A keyspace.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Its name.
    pub(super) name: KeyspaceName,
    /// Its id.
    pub(super) id: KeyspaceId,
    /// Its settings.
    pub(super) spec: KeyspaceSpec,
    /// Replicas of each key in this cluster.
    pub(super) n: u8,
    /// Replies a read waits for.
    pub(super) r: u8,
    /// Acks a write waits for.
    pub(super) w: u8,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Where it is.
    pub(super) place: Place,
    /// Its keyspace.
    pub(super) space: usize,
    /// What it is for.
    pub(super) kind: KeyKind,
    /// Everything anybody tried to write.
    pub(super) writes: Vec<Write>,
    /// What was acknowledged, by the number of acks.
    pub(super) acked: BTreeMap<u8, Context>,
    /// What was shown to anybody.
    pub(super) shown: Context,
}

/// One write.
#[derive(Debug)]
pub(super) struct Write {
    /// What it does.
    pub(super) operation: Operation,
    /// What its author had seen; of an author who kept only the context, nothing but that.
    pub(super) observed: Object,
    /// Its dot and delta, if a session bound it.
    pub(super) bound: Option<(Dot, Object)>,
    /// What became of it.
    pub(super) fate: Fate,
}

impl Write {
    /// Whether it acts on content under this dot. Only a whole replace or delete can act on what it knows by context alone.
    pub(super) fn has_seen(&self, dot: Dot) -> bool {
        let is_whole = matches!(self.operation, Operation::Delete | Operation::Replace { .. });
        self.observed.context().covers(dot) && (is_whole || !self.observed.is_vacant())
    }
}

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its author still waits.
    Open,
    /// It was acknowledged.
    Applied,
    /// It never happened.
    Refused,
    /// It may have happened.
    Unknown,
}

impl History {
    /// A keyspace exists: its keys can be used.
    pub(super) fn add_space(
        &mut self,
        scenario: &Scenario,
        (name, id, spec): (KeyspaceName, KeyspaceId, KeyspaceSpec),
    ) {
        let n =
            spec.class.n.min(u8::try_from(scenario.machines() - scenario.leavers.len()).expect("clusters are small"));
        let quorum = |asked: u8| if asked == 0 { n / 2 + 1 } else { asked.min(n) };
        let space = self.spaces.len();
        self.spaces.push(Space { name, id, spec, n, r: quorum(spec.class.r), w: quorum(spec.class.w) });
        for &kind in &scenario.kinds {
            let collection = match spec.layout {
                KeyspaceLayout::Collection => COLLECTION.into(),
                KeyspaceLayout::Key => bytes::Bytes::new(),
            };
            let place = Place { keyspace: id, collection, key: kind.key() };
            let (acked, shown) = (BTreeMap::new(), Context::default());
            self.keys.push(Key { place, space, kind, writes: Vec::new(), acked, shown });
        }
    }

    /// A value nobody else writes.
    pub(super) fn fresh_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// The keyspace of a key.
    #[must_use]
    pub(super) fn space_of(&self, key: usize) -> &Space {
        &self.spaces[self.keys[key].space]
    }

    /// Notes a write that is about to be sent.
    pub(super) fn begin_write(&mut self, key: usize, write: Write) -> usize {
        self.keys[key].writes.push(write);
        self.keys[key].writes.len() - 1
    }

    /// What a read that begins now and waits for `r` replies must show: acks of writes it overlaps with.
    #[must_use]
    pub(super) fn floor(&self, key: usize, r: Option<u8>) -> Context {
        let space = self.space_of(key);
        let r = r.unwrap_or(space.r);
        let mut floor = Context::default();
        for (acks, context) in &self.keys[key].acked {
            if acks + r > space.n {
                floor.join(context);
            }
        }
        floor
    }

    /// A write was acknowledged.
    pub(super) fn written(
        &mut self,
        world: &mut World,
        (key, write, w): (usize, usize, Option<u8>),
        written: &Written,
    ) {
        world.count("acks");
        let space = self.space_of(key);
        let (needed, weak) = (w.unwrap_or(space.w), w.is_some_and(|w| w < space.w));
        if written.acks < needed || written.weak != weak {
            world.find("honest acks", format!("{} acks of {needed}, weak {}", written.acks, written.weak));
        }
        if written.fallbacks > 0 {
            world.count("acks of fallbacks");
            if space.spec.quorum == QuorumMode::Strict {
                world.find("honest acks", format!("{} fallbacks count in a strict keyspace", written.fallbacks));
            }
        }
        let context = opened(&written.context);
        let key = &mut self.keys[key];
        let record = &mut key.writes[write];
        record.fate = Fate::Applied;
        if let Some((_, delta)) = &record.bound
            && world.mutant.is_none()
            && *delta.context() != context
        {
            world.find("honest acks", "the context of an ack is not its delta's");
        }
        // What fallbacks hold no read is sure to see; lost it is not.
        key.acked.entry(written.acks.saturating_sub(written.fallbacks)).or_default().join(&context);
    }

    /// A read was answered; `floor` is from when it began. Returns the object.
    pub(super) fn got(&mut self, world: &mut World, key: usize, (get, floor): (&Get, &Context), got: &Got) -> Object {
        world.count("reads");
        let space = self.space_of(key);
        let (needed, weak) = (get.r.unwrap_or(space.r), get.r.is_some_and(|r| r < space.r));
        if got.replies < needed || got.weak != weak {
            world.find("honest reads", format!("{} replies of {needed}, weak {}", got.replies, got.weak));
        }
        let object = Object::decode(&got.object).expect("nodes send canonical objects");
        if *object.context() != opened(&got.context) {
            world.find("honest reads", "the sealed context is not the object's");
        }
        self.shown(world, (key, "read"), &object, floor);
        if let Some(min) = &get.min_ctx
            && !object.context().covers_all(&opened(min))
        {
            world.find("read your writes", format!("{:?}: the answer does not cover min_ctx", self.keys[key].place));
        }
        object
    }

    /// An object was shown to a client that had asked when `floor` was acknowledged.
    pub(super) fn shown(&mut self, world: &mut World, (key, how): (usize, &str), object: &Object, floor: &Context) {
        let key = &mut self.keys[key];
        if !object.context().covers_all(floor) {
            let seen = object.context();
            world.find("R + W > N", format!("{how} of {:?} shows {seen:?}, acknowledged {floor:?}", key.place));
        }
        key.shown.join(object.context());
    }
}

/// What a sealed context says, without its keys: checkers stand outside.
#[must_use]
pub(super) fn opened(sealed: &EncodedContext) -> Context {
    let bytes = &sealed.0;
    Context::decode(&bytes[SEAL_HEAD..bytes.len() - SEAL_TAIL]).expect("nodes seal canonical contexts")
}

/// Version and place hash before, key id and MAC behind the context in a sealed one.
const SEAL_HEAD: usize = 9;
const SEAL_TAIL: usize = 17;
