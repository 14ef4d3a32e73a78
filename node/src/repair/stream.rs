//! A partition that is not here, or hardly: its rows come in order, page by page, into the bulk path.
//!
//! Shape: the class' keyspaces one after the other; of each, pages behind the last row ingested. The position is kept when a
//! source is lost, and another may go on from it: what a stream leaves out, the descent behind it finds.
//! Invariants: a page is ingested whole and in row order, or not at all; the next is asked for when it is durable.

use std::collections::BTreeSet;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::id::{KeyspaceId, Partition};
use shoal_protocol::object::Object;
use shoal_protocol::peer::{PeerRequest, PeerResponse, PeerScan};

use super::budget::Moved;
use super::descent::{Question, Side, Step};
use crate::storage::RowKey;

/// Up to where the rows of a partition were streamed: behind this row of this keyspace.
pub(super) type Position = (KeyspaceId, Option<(Bytes, Bytes)>);

#[derive(Debug)]
pub(super) struct Stream {
    partition: Partition,
    /// Those left, the present one first.
    keyspaces: Vec<KeyspaceId>,
    after: Option<(Bytes, Bytes)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Asked,
    /// A page is there, to be ingested.
    Page(Vec<(RowKey, Bytes)>, After),
    Ingesting(After),
}

/// Where the stream is once a page is ingested.
#[derive(Debug)]
struct After {
    row: Option<(Bytes, Bytes)>,
    finished: bool,
}

/// What a page was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paged {
    Good(Moved),
    /// This source cannot show its rows in order.
    Refused,
    /// Not what was asked for.
    Malformed,
}

impl Stream {
    /// The rows of these keyspaces, from a position on.
    pub(super) fn new(partition: Partition, keyspaces: &BTreeSet<KeyspaceId>, from: Option<&Position>) -> Self {
        let left = keyspaces.iter().filter(|id| from.is_none_or(|(at, _)| *at <= **id)).copied();
        let keyspaces: Vec<KeyspaceId> = left.collect();
        let after = from.filter(|(at, _)| keyspaces.first() == Some(at)).and_then(|(_, after)| after.clone());
        Self { partition, keyspaces, after, state: State::Idle }
    }

    /// Where it is; `None` when all came.
    pub(super) fn position(&self) -> Option<Position> {
        Some((*self.keyspaces.first()?, self.after.clone()))
    }

    pub(super) fn next(&mut self) -> Option<Step> {
        let keyspace = *self.keyspaces.first()?;
        match std::mem::replace(&mut self.state, State::Asked) {
            State::Idle => {
                let scan = PeerScan {
                    partition: self.partition,
                    keyspace,
                    collection: None,
                    prefix: Bytes::new(),
                    after: self.after.clone(),
                    reverse: false,
                    rows_max: ROWS_MAX,
                    bytes_max: BYTES_MAX,
                };
                let request = Box::new(PeerRequest::Scan(scan));
                Some(Step::Ask { side: Side::There, question: Question::Page, request })
            }
            State::Page(rows, after) => {
                self.state = State::Ingesting(after);
                Some(Step::Ingest { rows })
            }
            other @ (State::Asked | State::Ingesting(_)) => {
                self.state = other;
                None
            }
        }
    }

    /// A page came.
    pub(super) fn answered(&mut self, response: PeerResponse) -> Paged {
        let PeerResponse::Rows { rows, finished } = response else { return Paged::Refused };
        let Some(keyspace) = self.keyspaces.first().copied() else { return Paged::Malformed };
        let (mut page, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        let after = After { row: rows.last().map(|(collection, key, _)| (collection.clone(), key.clone())), finished };
        for (collection, key, object) in rows {
            let place = Place { keyspace, collection, key };
            let is_ours = place.partition(self.partition.class) == self.partition;
            if !is_ours || Object::decode(&object).is_err() {
                return Paged::Malformed;
            }
            bytes += (object.len() + place.collection.len() + place.key.len()) as u64;
            page.push((RowKey::new(self.partition, &place), object));
        }
        let begin = self.after.as_ref().map(|(collection, key)| {
            RowKey::new(self.partition, &Place { keyspace, collection: collection.clone(), key: key.clone() })
        });
        let goes_on = begin.is_none_or(|begin| page.first().is_none_or(|(first, _)| begin < *first));
        if !goes_on || !page.is_sorted_by(|a, b| a.0 < b.0) || page.is_empty() && !finished {
            return Paged::Malformed;
        }
        let objects = page.len() as u64;
        self.state = if page.is_empty() { State::Idle } else { State::Page(page, after) };
        if objects == 0 {
            self.keyspaces.remove(0);
            self.after = None;
        }
        Paged::Good(Moved { bytes, objects })
    }

    /// The page is durable here.
    pub(super) fn ingested(&mut self) {
        let State::Ingesting(after) = &mut self.state else { return };
        self.after = after.row.take();
        let finished = after.finished;
        self.state = State::Idle;
        if finished {
            self.keyspaces.remove(0);
            self.after = None;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.keyspaces.is_empty()
    }
}

/// Rows and bytes of a page: one chunk of the rows' file, and what a frame carries with ease.
const ROWS_MAX: u32 = 4_096;
const BYTES_MAX: u32 = 1 << 20;
