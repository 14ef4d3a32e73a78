//! The door: what a client's request must satisfy before any replica hears of it.
//!
//! Checks here need no stored state: the keyspace exists, sizes of names, quorum sizes, contexts are ours and of this
//! place, a delta is its session's own and covers nothing unjustified, the session lives, the clock is sane. Checks against
//! the stored object (type, limits) are the replica's (`PeerRequest::Admit`). Source: DESIGN §4.

use bytes::Bytes;
use shoal_protocol::address::{COLLECTION_BYTES_MAX, KEY_BYTES_MAX, Place};
use shoal_protocol::causality::{Context, ContextError, EncodedContext};
use shoal_protocol::client::{KeyspaceInfo, KeyspaceLayout, QuorumMode};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, KeyspaceId, Partition};
use shoal_protocol::object::{AuthorError, Object};
use shoal_protocol::time::WallTime;

use super::Surroundings;
use super::quorum::Tally;
use crate::ring::{Numbers, Rings};

/// The keyspace of a request.
pub(crate) fn keyspace<'a>(around: Surroundings<'a>, id: KeyspaceId) -> Result<&'a KeyspaceInfo, RequestError> {
    around.keyspaces.get(&id).ok_or(RequestError::KeyspaceGone { id })
}

/// Checks a place against its keyspace; gives its partition.
pub(crate) fn place(info: &KeyspaceInfo, place: &Place) -> Result<Partition, RequestError> {
    let limit = |limit: &str, actual: usize, max: usize| {
        Err(RequestError::Limit { limit: limit.into(), actual: actual as u64, max: max as u64 })
    };
    if place.key.len() > KEY_BYTES_MAX {
        return limit("key", place.key.len(), KEY_BYTES_MAX);
    }
    if place.collection.len() > COLLECTION_BYTES_MAX {
        return limit("collection", place.collection.len(), COLLECTION_BYTES_MAX);
    }
    if place.key.is_empty() {
        return Err(RequestError::BadRequest { reason: "the key is empty".into() });
    }
    match (info.spec.layout, place.collection.is_empty()) {
        (KeyspaceLayout::Key, true) | (KeyspaceLayout::Collection, false) => Ok(place.partition(info.spec.class)),
        (KeyspaceLayout::Key, false) => Err(RequestError::BadRequest {
            reason: format!("keyspace `{}` has layout key: address it as keyspace/key", info.name),
        }),
        (KeyspaceLayout::Collection, true) => Err(RequestError::BadRequest {
            reason: format!("keyspace `{}` has layout collection: address it as keyspace/collection/key", info.name),
        }),
    }
}

/// What a write says of how it is to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) w: Option<u8>,
    pub(crate) quorum: Option<QuorumMode>,
}

/// The tally of a request for a partition: how many replicas of each active layout it waits for; and whether that is fewer
/// than its keyspace promises. `standard` picks what it promises.
pub(crate) fn quorum(
    rings: &Rings,
    partition: Partition,
    asked: Option<u8>,
    standard: impl Fn(Numbers) -> u8,
) -> Result<(Tally, bool), RequestError> {
    let (mut layouts, mut weak) = (Vec::new(), false);
    for ring in rings.iter() {
        let numbers = ring.numbers(partition.class);
        let needed = match asked {
            None => standard(numbers),
            Some(0) => return Err(RequestError::BadRequest { reason: "r and w are at least 1".into() }),
            Some(asked) if asked > numbers.n => return Err(RequestError::TooFewNodes { asked, nodes: numbers.n }),
            Some(asked) => asked,
        };
        weak |= needed < standard(numbers);
        layouts.push((ring.preference(partition).primaries.iter().copied().collect(), needed));
    }
    Ok((Tally::new(layouts), weak))
}

/// Opens a context for `place`.
pub(crate) fn open(around: Surroundings<'_>, place: &Place, context: &EncodedContext) -> Result<Context, RequestError> {
    context.open(around.context_keys, place).map_err(|error| {
        if error == ContextError::Mismatch {
            RequestError::ContextMismatch
        } else {
            RequestError::ContextInvalid { reason: error.to_string() }
        }
    })
}

/// Decodes a delta and checks that `session` may bring it.
pub(crate) fn delta(
    around: Surroundings<'_>,
    session: Actor,
    place: &Place,
    (bytes, contexts): (&Bytes, &[EncodedContext]),
) -> Result<Object, RequestError> {
    let delta = Object::decode(bytes)
        .map_err(|error| RequestError::BadRequest { reason: format!("the delta does not decode: {error}") })?;
    let mut presented = Context::default();
    for context in contexts {
        presented.join(&open(around, place, context)?);
    }
    let wall = around.now.wall;
    session_lives(session, wall)?;
    delta.authored_by(session, &presented).map_err(|error| {
        if error == AuthorError::NoDot { RequestError::ForeignSession } else { RequestError::ForgedContext }
    })?;
    let ahead_ms = delta.hlc_max().wall().0.saturating_sub(wall.0);
    if ahead_ms > CLOCK_AHEAD_MS_MAX {
        return Err(RequestError::ClockSkew { ahead_ms });
    }
    Ok(delta)
}

/// What a session minted is taken for `ACCEPT_GRACE_DAYS` after its last minting day.
pub(crate) fn session_lives(session: Actor, wall: WallTime) -> Result<(), RequestError> {
    match session.expiry_day() {
        Some(day) if wall.day() <= u64::from(day) + ACCEPT_GRACE_DAYS => Ok(()),
        Some(_) | None => Err(RequestError::SessionExpired),
    }
}

/// How far a client's hlc may run ahead of this node's clock, ms. Further is refused, never clamped (DESIGN §4).
pub(crate) const CLOCK_AHEAD_MS_MAX: u64 = 60_000;
/// Days after a session's expiry day on which its operations are still taken (DESIGN §4, Actors).
const ACCEPT_GRACE_DAYS: u64 = 60;
