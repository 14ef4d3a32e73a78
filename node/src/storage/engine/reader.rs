//! Reads: rows by key, pages of rows in order.
//!
//! Shape: one read transaction per call, so rows and the `replay_from` reported with them belong together. Readers do not
//! wait for the writer (redb is multi-version).
//! Invariant: bytes whose checksum is wrong are reported as damage, never as content and never as absence.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, Range, ReadTransaction, ReadableDatabase};
use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;

use crate::storage::effect::{
    Failure, LoadedRow, RowRead, ScanRequest, ScannedRow, ScannedRows, StoreDone, StoreEffect, StoredRow,
};
use crate::storage::key::RowKey;
use crate::storage::row::{Kind, Row, unseal};

use super::{REPLAY_FROM, ROWS, STATE, failed, guarded};

/// Performs `Load` and `Scan` beside an engine. It keeps the file open: drop it before opening another engine.
#[derive(Clone, Debug)]
pub struct Reader {
    rows: Arc<Database>,
}

impl Reader {
    pub(super) fn new(rows: Arc<Database>) -> Self {
        Self { rows }
    }

    /// Performs the `Load`s and `Scan`s among `effects` and passes over the rest. `Failed`, which comes last, says that the
    /// engine is to be reopened.
    #[must_use]
    pub fn perform(&self, effects: Vec<StoreEffect>) -> Vec<StoreDone> {
        let mut done = Vec::new();
        for effect in effects {
            let read = guarded(|| match effect {
                StoreEffect::Load { keys } => self.load(keys).map(Some),
                StoreEffect::Scan(request) => self.scan(&request).map(|page| Some(StoreDone::Scanned(page))),
                StoreEffect::Append { .. }
                | StoreEffect::Flush(_)
                | StoreEffect::Lease(_)
                | StoreEffect::Persist { .. }
                | StoreEffect::Reopen => Ok(None),
            });
            match read {
                Ok(read) => done.extend(read),
                Err(failure) => {
                    done.push(StoreDone::Failed(failure));
                    break;
                }
            }
        }
        done
    }

    pub(super) fn load(&self, keys: Vec<RowKey>) -> Result<StoreDone, Failure> {
        let transaction = self.rows.begin_read().map_err(failed)?;
        let replay_from = replay_from(&transaction)?;
        let table = transaction.open_table(ROWS).map_err(failed)?;
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let value = table.get(key.as_bytes()).map_err(failed)?;
            let row = value.map_or(RowRead::Absent, |value| read_row(&key, value.value()));
            rows.push(LoadedRow { key, row });
        }
        Ok(StoreDone::Loaded { rows, replay_from })
    }

    pub(super) fn scan(&self, request: &ScanRequest) -> Result<ScannedRows, Failure> {
        let transaction = self.rows.begin_read().map_err(failed)?;
        let replay_from = replay_from(&transaction)?;
        let mut page = ScannedRows { id: request.id, rows: Vec::new(), nameless_count: 0, finished: true, replay_from };
        if request.range.is_empty() {
            return Ok(page);
        }
        let table = transaction.open_table(ROWS).map_err(failed)?;
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (request.range.from.as_ref().map(|b| &b[..]), request.range.to.as_ref().map(|b| &b[..]));
        let mut rows: Range<'_, &[u8], &[u8]> = table.range::<&[u8]>(bounds).map_err(failed)?;
        let mut bytes = 0;
        while let Some(row) = if request.reverse { rows.next_back() } else { rows.next() } {
            let (key, value) = row.map_err(failed)?;
            let Some(key) = RowKey::decode(Bytes::copy_from_slice(key.value())) else {
                page.nameless_count += 1;
                continue;
            };
            if !request.range.accepts(&key) {
                continue;
            }
            if page.rows.len() >= request.rows_max || bytes >= request.bytes_max {
                page.finished = false;
                break;
            }
            let row = scan_row(key, value.value());
            bytes += row.object.as_ref().map_or(0, |(object, _)| object.len());
            page.rows.push(row);
        }
        Ok(page)
    }
}

fn replay_from(transaction: &ReadTransaction) -> Result<Lsn, Failure> {
    let table = transaction.open_table(STATE).map_err(failed)?;
    let value = table.get(REPLAY_FROM).map_err(failed)?;
    value
        .as_ref()
        .and_then(|value| unseal(Kind::State, REPLAY_FROM.as_bytes(), value.value())?.try_into().ok())
        .map(|lsn| Lsn(u64::from_be_bytes(lsn)))
        .ok_or_else(|| Failure::Damaged { reason: "replay_from is unreadable".into() })
}

fn read_row(key: &RowKey, value: &[u8]) -> RowRead {
    let stored = |row: &Row<'_>| {
        let object = Object::decode_shared(&Bytes::copy_from_slice(row.object)).ok()?;
        Some(StoredRow { object, lsn: row.lsn, digest: row.digest })
    };
    match Row::decode(key.as_bytes(), value) {
        Some(row) if row.partial => RowRead::Damaged { rest: stored(&row) },
        Some(row) => stored(&row).map_or(RowRead::Damaged { rest: None }, RowRead::Found),
        None => RowRead::Damaged { rest: None },
    }
}

fn scan_row(key: RowKey, value: &[u8]) -> ScannedRow {
    match Row::decode(key.as_bytes(), value) {
        Some(row) => {
            let object = Some((Bytes::copy_from_slice(row.object), row.lsn));
            ScannedRow { key, object, damaged: row.partial }
        }
        None => ScannedRow { key, object: None, damaged: true },
    }
}
