//! The objects of a comparison: keys whose digests differ are joined on both sides.
//!
//! Shape: per key a case. One that only one side has goes over whole; of one that both have the peer's is fetched, unless it
//! has become equal, then this node's, and each side gets what it lacks. Rows are as of some moment ago, objects as of now: a
//! key that was compared in the middle of a write costs one question and moves nothing.
//! Invariants: at most `CASES_MAX` cases are open; a key that failed does not keep the others from being joined, but the
//! comparison then is not clean.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Digest, Object, merge};
use shoal_protocol::peer::{ApplyCause, PeerRequest, PeerResponse, Refusal};

use super::budget::Moved;
use super::descent::{Question, Side, Step};
use crate::storage::RowKey;

#[derive(Debug, Default)]
pub(super) struct Objects {
    todo: VecDeque<(RowKey, Found)>,
    cases: BTreeMap<u32, Case>,
    /// What open cases are to ask next.
    asks: VecDeque<Step>,
    cases_count: u32,
    has_failed: bool,
}

/// Who has a row of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Here,
    There,
    /// Both, this node's with this digest.
    Both(Digest),
}

/// How far a key is.
#[derive(Debug)]
enum Case {
    /// The peer is asked for its object; this node has one, too, if that is said.
    Fetching { key: RowKey, is_here: bool },
    /// This node is asked for its own object, to be joined with the peer's.
    Reading { key: RowKey, theirs: Box<Object> },
    /// So many sides have not said yet that they joined what they lacked.
    Joining { left: usize },
}

impl Objects {
    /// The keys that differ between two lists of the same buckets.
    pub(super) fn between(here: BTreeMap<RowKey, Digest>, mut there: BTreeMap<RowKey, Digest>) -> Self {
        let mut todo = VecDeque::new();
        for (key, digest) in here {
            match there.remove(&key) {
                Some(theirs) if theirs == digest => {}
                Some(_) => todo.push_back((key, Found::Both(digest))),
                None => todo.push_back((key, Found::Here)),
            }
        }
        todo.extend(there.into_keys().map(|key| (key, Found::There)));
        Self { todo, ..Self::default() }
    }

    /// Once no key is left: whether all were joined.
    pub(super) fn verdict(&self) -> Option<bool> {
        (self.todo.is_empty() && self.cases.is_empty()).then_some(!self.has_failed)
    }

    /// What is to be asked next.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.asks.is_empty() && self.cases.len() < CASES_MAX {
            let (key, found) = self.todo.pop_front()?;
            self.cases_count = self.cases_count.wrapping_add(1);
            let number = self.cases_count;
            let (case, ask) = match found {
                Found::Here => {
                    (Case::Reading { key: key.clone(), theirs: Box::default() }, get(Side::Here, number, &key, None))
                }
                Found::There => {
                    (Case::Fetching { key: key.clone(), is_here: false }, get(Side::There, number, &key, None))
                }
                Found::Both(digest) => {
                    (Case::Fetching { key: key.clone(), is_here: true }, get(Side::There, number, &key, Some(digest)))
                }
            };
            self.cases.insert(number, case);
            return Some(ask);
        }
        self.asks.pop_front()
    }

    /// A side answers a case; what that moved.
    pub(super) fn answered(&mut self, number: u32, response: &PeerResponse) -> Moved {
        let Some(case) = self.cases.remove(&number) else { return Moved::default() };
        match (case, response) {
            (Case::Fetching { .. } | Case::Reading { .. }, PeerResponse::Same) => {}
            (Case::Fetching { key, is_here }, PeerResponse::State { object, digest }) => {
                self.fetched(number, (key, is_here), (object, *digest));
                return Moved { bytes: object.len() as u64, objects: 1 };
            }
            (Case::Reading { key, theirs }, PeerResponse::State { object, .. }) => {
                return self.read(number, &key, (theirs, object));
            }
            (Case::Joining { left }, PeerResponse::Applied(_)) => {
                if left > 1 {
                    self.cases.insert(number, Case::Joining { left: left - 1 });
                }
            }
            // Dropped meanwhile: nobody reads it any more.
            (_, PeerResponse::Refused(Refusal::Request(RequestError::KeyspaceGone { .. }))) => {}
            // Unreadable here: what the peer has is no less for that. What heals the row is another matter.
            (Case::Reading { key, theirs }, PeerResponse::Refused(Refusal::NotSynced)) if !theirs.is_vacant() => {
                self.apply(number, &key, vec![(Side::Here, theirs.encode())]);
            }
            (Case::Fetching { .. } | Case::Reading { .. } | Case::Joining { .. }, _) => self.has_failed = true,
        }
        Moved::default()
    }

    fn fetched(&mut self, number: u32, (key, is_here): (RowKey, bool), (object, digest): (&Bytes, Digest)) {
        match Object::decode_shared(object) {
            Ok(_) if !is_here => self.apply(number, &key, vec![(Side::Here, object.clone())]),
            Ok(theirs) => {
                self.asks.push_back(get(Side::Here, number, &key, Some(digest)));
                self.cases.insert(number, Case::Reading { key, theirs: Box::new(theirs) });
            }
            Err(_) => self.has_failed = true,
        }
    }

    fn read(&mut self, number: u32, key: &RowKey, (theirs, ours): (Box<Object>, &Bytes)) -> Moved {
        let Ok(ours) = Object::decode_shared(ours) else {
            self.has_failed = true;
            return Moved::default();
        };
        let joined = merge(&ours, &theirs);
        let mut lacks = Vec::new();
        if joined != ours {
            lacks.push((Side::Here, theirs.delta_for(&ours).encode()));
        }
        let mut moved = Moved::default();
        if joined != *theirs {
            let delta = ours.delta_for(&theirs).encode();
            moved.add(Moved { bytes: delta.len() as u64, objects: 1 });
            lacks.push((Side::There, delta));
        }
        self.apply(number, key, lacks);
        moved
    }

    fn apply(&mut self, number: u32, key: &RowKey, lacks: Vec<(Side, Bytes)>) {
        if lacks.is_empty() {
            return;
        }
        self.cases.insert(number, Case::Joining { left: lacks.len() });
        for (side, delta) in lacks {
            let request =
                PeerRequest::Apply { place: key.place(), delta, cause: ApplyCause::Exchange, compact_epoch: 0 };
            let request = Box::new(request);
            self.asks.push_back(Step::Ask { side, question: Question::Object(number), request });
        }
    }
}

fn get(side: Side, number: u32, key: &RowKey, have: Option<Digest>) -> Step {
    let request = Box::new(PeerRequest::Get { place: key.place(), have });
    Step::Ask { side, question: Question::Object(number), request }
}

/// Guess: enough to hide a round trip, few enough that a failure wastes little.
const CASES_MAX: usize = 32;
