//! A page of rows: R replicas' sorted slices, merged key by key.
//!
//! Shape: one `Feed` per replica; a row is emitted only when every unfinished feed has shown something at or behind it,
//! which is the rule "up to the smallest last key among the unfinished pages" (DESIGN §6). Vacant and expired rows are merged
//! and dropped; a replica that shows less than the merge is repaired. Bounds: `limit` live rows, `EXAMINED_ROWS_MAX` rows looked at, about `PAGE_BYTES_MAX` bytes.
//! Invariant: consistent per key (R replicas merged), not a snapshot; the cursor never skips a row.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::causality::EncodedContext;
use shoal_protocol::client::{self, ClientResponse, KeyspaceLayout, Page, Row, SCAN_LIMIT_MAX, ScanScope};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{NodeId, PARTITIONS_COUNT, Partition};
use shoal_protocol::object::{Conflict, Object, View};
use shoal_protocol::peer::{ApplyCause, PeerRequest, PeerResponse, PeerScan, Refusal};

use super::quorum::Tally;
use super::{Cx, Step, Surroundings, door};

type Position = (Bytes, Bytes);

/// One page being put together.
#[derive(Debug)]
pub(crate) struct ScanPages {
    scan: client::Scan,
    partition: Partition,
    conflict: Conflict,
    /// Whose slices it takes.
    tally: Tally,
    candidates: Vec<NodeId>,
    feeds: BTreeMap<NodeId, Feed>,
    /// The last row looked at; the page goes on behind it.
    position: Option<Position>,
    rows: Vec<Row>,
    bytes: usize,
    examined: usize,
    complete: bool,
    answered: bool,
}

#[derive(Debug, Default)]
struct Feed {
    rows: VecDeque<(Bytes, Bytes, Object)>,
    finished: bool,
    waiting: bool,
}

impl ScanPages {
    pub(crate) fn new(around: Surroundings<'_>, scan: client::Scan) -> Result<Self, RequestError> {
        let bad = |reason: &str| Err(RequestError::BadRequest { reason: reason.into() });
        let info = door::keyspace(around, scan.keyspace)?;
        if scan.limit == 0 || scan.limit > SCAN_LIMIT_MAX {
            return Err(RequestError::Limit {
                limit: "scan".into(),
                actual: u64::from(scan.limit),
                max: u64::from(SCAN_LIMIT_MAX),
            });
        }
        let partition = match &scan.scope {
            ScanScope::Collection(_) if info.spec.layout == KeyspaceLayout::Key => {
                return bad("a keyspace with layout key has no collections to scan");
            }
            ScanScope::Collection(collection) if collection.is_empty() => return bad("the collection is empty"),
            ScanScope::Collection(collection) => {
                Place { keyspace: info.id, collection: collection.clone(), key: Bytes::new() }
                    .partition(info.spec.class)
            }
            ScanScope::Partition(index) if *index >= PARTITIONS_COUNT => return bad("no such partition"),
            ScanScope::Partition(index) => Partition { class: info.spec.class, index: *index },
        };
        let position = match &scan.cursor {
            None => None,
            Some(cursor) => match codec::decode::<Position>(cursor) {
                Ok(position) => Some(position),
                Err(_) => return bad("the cursor is damaged"),
            },
        };
        let (tally, _) = door::quorum(around.rings, partition, scan.r, |numbers| numbers.r)?;
        let mut candidates = around.rings.owners(partition);
        candidates.retain(|node| !around.replaced.contains_key(node));
        candidates.sort_by_key(|node| (around.suspects.contains(node), *node != around.me));
        Ok(Self {
            partition,
            conflict: info.spec.conflict,
            tally,
            candidates,
            feeds: BTreeMap::new(),
            position,
            rows: Vec::new(),
            bytes: 0,
            examined: 0,
            complete: true,
            answered: false,
            scan,
        })
    }

    /// Other layouts are active now: their quorums are needed as well.
    pub(crate) fn view_changed(&mut self, cx: &Cx<'_>) {
        if self.answered {
            return;
        }
        if let Ok((tally, _)) = door::quorum(cx.around.rings, self.partition, self.scan.r, |numbers| numbers.r) {
            self.tally.also(tally);
        }
        let owners = cx.around.rings.owners(self.partition);
        let is_new = |node: &NodeId| !self.candidates.contains(node) && !self.feeds.contains_key(node);
        let new: Vec<NodeId> =
            owners.into_iter().filter(|node| is_new(node) && !cx.around.replaced.contains_key(node)).collect();
        self.candidates.extend(new);
    }

    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, response: PeerResponse) -> Step {
        match response {
            PeerResponse::Rows { rows, finished } => {
                let decoded: Result<Vec<_>, _> =
                    rows.into_iter().map(|(c, k, bytes)| Object::decode(&bytes).map(|object| (c, k, object))).collect();
                match (self.feeds.get_mut(&from), decoded) {
                    (Some(feed), Ok(rows)) => {
                        feed.waiting = false;
                        feed.finished = finished;
                        feed.rows.extend(rows);
                        self.advance(cx)
                    }
                    (_, Err(_)) => self.lost(cx, from),
                    (None, Ok(_)) => Step::Pending,
                }
            }
            PeerResponse::Refused(refusal) => {
                if refusal == Refusal::UnknownView {
                    cx.exchange(from);
                }
                self.lost(cx, from)
            }
            PeerResponse::Admitted
            | PeerResponse::Applied(_)
            | PeerResponse::Minted { .. }
            | PeerResponse::Same
            | PeerResponse::State { .. }
            | PeerResponse::System { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => self.lost(cx, from),
        }
    }

    /// `node` will not go on: another replica takes its place from where the page stands.
    pub(crate) fn lost(&mut self, cx: &mut Cx<'_>, node: NodeId) -> Step {
        self.feeds.remove(&node);
        self.advance(cx)
    }

    /// The deadline.
    pub(crate) fn expired(&mut self, _cx: &mut Cx<'_>) -> Step {
        if self.answered {
            return Step::Pending;
        }
        self.unavailable()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.feeds.values().filter(|feed| feed.waiting).count()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.answered
    }

    /// Merges as far as the feeds allow; asks where they end too early.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.answered {
            return Step::Pending;
        }
        while self.is_short() {
            let Some(node) = self.next_candidate(cx) else {
                if self.feeds.is_empty() {
                    return self.unavailable();
                }
                self.complete = false;
                break;
            };
            self.feeds.insert(node, Feed::default());
        }
        loop {
            if self.is_full() {
                return self.finish(self.position.clone());
            }
            let empty: Vec<NodeId> =
                self.feeds.iter().filter(|(_, f)| f.rows.is_empty() && !f.finished).map(|(n, _)| *n).collect();
            if !empty.is_empty() {
                self.ask(cx, &empty);
                return Step::Pending;
            }
            let Some(next) = self.smallest_head() else { return self.finish(None) };
            self.take(cx, next);
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.scan.limit as usize
            || self.examined >= EXAMINED_ROWS_MAX
            || self.bytes >= PAGE_BYTES_MAX
    }

    /// Whether some layout lacks feeds for its quorum.
    fn is_short(&self) -> bool {
        let (feeds, needed) = self.tally.reach(|node| self.feeds.contains_key(node));
        feeds < needed
    }

    fn next_candidate(&mut self, cx: &Cx<'_>) -> Option<NodeId> {
        let helps = |node: &NodeId| {
            let is_coming = |coming: &NodeId| self.feeds.contains_key(coming);
            cx.around.alive.contains(node) && self.tally.lacks(*node, is_coming)
        };
        let next = self.candidates.iter().position(helps)?;
        Some(self.candidates.remove(next))
    }

    fn ask(&mut self, cx: &mut Cx<'_>, nodes: &[NodeId]) {
        let left = self.scan.limit as usize - self.rows.len();
        for node in nodes {
            let Some(feed) = self.feeds.get_mut(node) else { continue };
            if feed.waiting {
                continue;
            }
            feed.waiting = true;
            cx.ask(
                *node,
                PeerRequest::Scan(PeerScan {
                    partition: self.partition,
                    keyspace: self.scan.keyspace,
                    collection: match &self.scan.scope {
                        ScanScope::Collection(collection) => Some(collection.clone()),
                        ScanScope::Partition(_) => None,
                    },
                    prefix: self.scan.prefix.clone(),
                    after: self.position.clone(),
                    reverse: self.scan.reverse,
                    rows_max: u32::try_from(left.min(FEED_ROWS_MAX)).unwrap_or(u32::MAX),
                    bytes_max: FEED_BYTES_MAX,
                }),
            );
        }
    }

    fn smallest_head(&self) -> Option<Position> {
        let heads = self.feeds.values().filter_map(|feed| feed.rows.front().map(|(c, k, _)| (c.clone(), k.clone())));
        if self.scan.reverse { heads.max() } else { heads.min() }
    }

    /// Merges the row at `next` from every feed that has it; whoever shows less gets the merge (read repair).
    fn take(&mut self, cx: &mut Cx<'_>, next: Position) {
        let mut shown: Vec<(NodeId, Object)> = Vec::with_capacity(self.feeds.len());
        for (node, feed) in &mut self.feeds {
            let has_it = feed.rows.front().is_some_and(|(c, k, _)| (c, k) == (&next.0, &next.1));
            let object = if has_it { feed.rows.pop_front().map(|(_, _, object)| object) } else { None };
            shown.push((*node, object.unwrap_or_default()));
        }
        let Some((_, first)) = shown.first() else { return };
        let mut merged = first.clone();
        if shown.iter().any(|(_, object)| *object != merged) {
            for (_, object) in &shown {
                merged.merge_into(object);
            }
            if self.conflict == Conflict::Lww {
                merged.prune_lww();
            }
            self.repair(cx, &next, &merged, &shown);
        }
        self.examined += 1;
        self.position = Some(next.clone());
        if matches!(merged.view(self.conflict, cx.around.now.wall), View::Absent) {
            return;
        }
        let (collection, key) = next;
        let (object, context) = if self.scan.values {
            let place = Place { keyspace: self.scan.keyspace, collection: collection.clone(), key: key.clone() };
            let context = EncodedContext::seal(cx.around.context_keys, &place, merged.context());
            (merged.encode(), Some(context))
        } else {
            (Bytes::new(), None)
        };
        self.bytes += collection.len() + key.len() + object.len();
        self.rows.push(Row { collection, key, object, context });
    }

    fn repair(&self, cx: &mut Cx<'_>, (collection, key): &Position, merged: &Object, shown: &[(NodeId, Object)]) {
        let place = Place { keyspace: self.scan.keyspace, collection: collection.clone(), key: key.clone() };
        for (node, object) in shown.iter().filter(|(_, object)| object != merged) {
            let (place, delta) = (place.clone(), merged.delta_for(object).encode());
            cx.tell(*node, PeerRequest::Apply { place, delta, cause: ApplyCause::ReadRepair, compact_epoch: 0 });
        }
    }

    fn finish(&mut self, position: Option<Position>) -> Step {
        self.answered = true;
        Step::Answer(Ok(ClientResponse::Page(Page {
            rows: std::mem::take(&mut self.rows),
            cursor: position.map(|position| codec::encode(&position).freeze()),
            complete: self.complete,
        })))
    }

    fn unavailable(&mut self) -> Step {
        self.answered = true;
        let has_answered = |node: &NodeId| self.feeds.get(node).is_some_and(|feed| !feed.waiting);
        let (replied, needed) = self.tally.reach(has_answered);
        Step::Answer(Err(RequestError::Unavailable { replied, needed }))
    }
}

/// Rows looked at for one page, so that a page over many deleted rows ends in time.
const EXAMINED_ROWS_MAX: usize = 20_000;
/// About so many bytes in one page; one row more may pass it.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Rows asked of one replica at a time.
const FEED_ROWS_MAX: usize = 2_000;
/// Bytes asked of one replica at a time.
const FEED_BYTES_MAX: u32 = 2 << 20;
