//! Scans: pages of rows, joined with the memtables, shown once synced.
//!
//! Shape: the engine reads a page of rows; the core joins it with the memtables' entries of the same stretch. A page read
//! before the last flush is read again: what that flush moved is in neither of the two.
//! Invariants: a page is in scan order, holds every visible object of its stretch, and leaves only when everything in it is
//! synced. Rows in no memtable are passed on as the canonical bytes they are.

use std::collections::BTreeMap;

use bytes::Bytes;
use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;

use super::effect::{ScanId, ScanPage, ScanRequest, ScanRow};
use super::key::RowKey;
use super::memtable::{Entry, Memtable};
use super::memtables::Parts;
use super::rowset::{ScannedRow, ScannedRows};

/// The scans of one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Scans {
    next: u64,
    running: BTreeMap<ScanId, ScanRequest>,
    /// Pages with something unsynced in them.
    held: Vec<(Lsn, ScanId, ScanPage)>,
}

impl Scans {
    pub(super) fn begin(&mut self, request: impl FnOnce(ScanId) -> ScanRequest) -> ScanRequest {
        let id = ScanId(self.next);
        self.next += 1;
        let request = request(id);
        self.running.insert(id, request.clone());
        request
    }

    /// The request a page answers, if it is still waited for.
    pub(super) fn running(&self, id: ScanId) -> Option<&ScanRequest> {
        self.running.get(&id)
    }

    pub(super) fn finish(&mut self, id: ScanId, page: ScanPage) {
        self.running.remove(&id);
        let lsn = page.rows.iter().map(|row| row.lsn).max().unwrap_or_default();
        self.held.push((lsn, id, page));
    }

    /// Pages in which everything is synced.
    pub(super) fn release(&mut self, synced: Lsn) -> Vec<(ScanId, ScanPage)> {
        self.held.extract_if(.., |(lsn, _, _)| *lsn <= synced).map(|(_, id, page)| (id, page)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.held.clear();
    }
}

/// What a scan is joined with.
pub(super) struct Tables<'a> {
    pub(super) memtables: Parts<&'a Memtable>,
    pub(super) lww: bool,
}

/// Everything known of one key of the stretch.
#[derive(Default)]
struct Found<'a> {
    row: Option<&'a ScannedRow>,
    entries: Parts<&'a Entry>,
}

/// The page of visible objects that `read` and the memtables make.
pub(super) fn join_page(request: &ScanRequest, read: &ScannedRows, tables: &Tables<'_>) -> ScanPage {
    let (found, mut finished) = gather(request, read, tables);
    let mut page = ScanPage { nameless_count: read.nameless_count, ..ScanPage::default() };
    let mut bytes = 0;
    let in_order: Box<dyn Iterator<Item = _>> =
        if request.reverse { Box::new(found.into_iter().rev()) } else { Box::new(found.into_iter()) };
    for (key, found) in in_order {
        if page.rows.len() >= request.rows_max || bytes >= request.bytes_max {
            finished = false;
            break;
        }
        match visible(&found, tables.lww) {
            Some((object, lsn)) => {
                bytes += object.len();
                page.rows.push(ScanRow { key, object, lsn });
            }
            None => page.damaged.push(key),
        }
    }
    page.finished = finished;
    page
}

/// The keys of the stretch that all sources cover, and whether the range ends with it.
fn gather<'a>(
    request: &ScanRequest,
    read: &'a ScannedRows,
    tables: &Tables<'a>,
) -> (BTreeMap<RowKey, Found<'a>>, bool) {
    let mut found: BTreeMap<RowKey, Found<'a>> = BTreeMap::new();
    for row in &read.rows {
        found.entry(row.key.clone()).or_default().row = Some(row);
    }
    // Behind this key some source was not asked.
    let mut horizon = if read.finished { None } else { read.rows.last().map(|row| row.key.clone()) };
    for (index, memtable) in tables.memtables.iter().enumerate() {
        let Some(memtable) = memtable.filter(|_| !request.range.is_empty()) else { continue };
        let entries = memtable.range(request.range.bounds()).filter(|(key, _)| request.range.accepts(key));
        let mut entries: Box<dyn Iterator<Item = _>> =
            if request.reverse { Box::new(entries.rev()) } else { Box::new(entries) };
        let mut last = None;
        for (key, entry) in entries.by_ref().take(request.rows_max) {
            found.entry(key.clone()).or_default().entries[index] = Some(entry);
            last = Some(key);
        }
        if entries.next().is_some() {
            horizon = nearer(request.reverse, horizon, last.cloned());
        }
    }
    let finished = horizon.is_none();
    if let Some(horizon) = horizon {
        found.retain(|key, _| if request.reverse { *key >= horizon } else { *key <= horizon });
    }
    (found, finished)
}

fn nearer(reverse: bool, a: Option<RowKey>, b: Option<RowKey>) -> Option<RowKey> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if reverse { a.max(b) } else { a.min(b) }),
        (a, b) => a.or(b),
    }
}

/// Row ⊔ frozen ⊔ active in canonical bytes; `None` if the row is damaged and nothing heals it.
fn visible(found: &Found<'_>, lww: bool) -> Option<(Bytes, Lsn)> {
    let mut entries = found.entries.iter().flatten().peekable();
    if found.row.is_some_and(|row| row.damaged) && !found.entries.iter().flatten().any(|entry| entry.heals) {
        return None;
    }
    let stored = found.row.and_then(|row| row.object.as_ref());
    if entries.peek().is_none()
        && let Some((bytes, lsn)) = stored
    {
        return Some((bytes.clone(), *lsn));
    }
    let mut lsn = Lsn::default();
    let mut object = Object::default();
    if let Some((bytes, row_lsn)) = stored {
        // The checksum held, so these are the bytes once written; were they none, the row counts as damaged.
        object = Object::decode_shared(bytes).ok()?;
        lsn = *row_lsn;
    }
    for entry in entries {
        object.merge_into(&entry.object());
        lsn = lsn.max(entry.lsn);
    }
    if lww {
        object.prune_lww();
    }
    Some((object.encode(), lsn))
}
