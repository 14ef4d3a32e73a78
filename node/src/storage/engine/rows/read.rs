//! Reads: rows by key, pages of rows in order, the keys of some buckets.
//!
//! Invariant: bytes whose checksum is wrong are reported as damage, never as content and never as absence.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use shoal_protocol::object::{Digest, Object};
use shoal_protocol::repair::bucket_of;

use crate::storage::effect::{Failure, KeysRequest, ScanRequest, StoreDone};
use crate::storage::engine::failed;
use crate::storage::key::{RowKey, encode_partition};
use crate::storage::row::Row;
use crate::storage::rowset::{BucketKeys, LoadedRow, RowRead, ScannedRow, ScannedRows, StoredRow};

use super::snapshot::Snapshot;
use super::with_range;

impl Snapshot {
    /// Performs a `Load`.
    pub(in crate::storage) fn load(&self, keys: Vec<RowKey>) -> Result<StoreDone, Failure> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.rows.get(key.as_bytes()).map_err(failed)?;
            let row = value.map_or(RowRead::Absent, |value| read_row(&key, value.value()));
            rows.push(LoadedRow { key, row });
        }
        Ok(StoreDone::Loaded { rows, at: self.at })
    }

    /// Performs a `Scan`.
    pub(in crate::storage) fn scan(&self, request: &ScanRequest) -> Result<ScannedRows, Failure> {
        let mut page = ScannedRows { id: request.id, rows: Vec::new(), nameless_count: 0, finished: true, at: self.at };
        if request.range.is_empty() {
            return Ok(page);
        }
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (request.range.from.as_ref().map(|b| &b[..]), request.range.to.as_ref().map(|b| &b[..]));
        let mut rows = self.rows.range::<&[u8]>(bounds).map_err(failed)?;
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

impl Snapshot {
    /// Performs a `Keys`: rows lie in key order, not in that of buckets, so all of the partition's are looked at.
    pub(in crate::storage) fn bucket_keys(&self, request: &KeysRequest) -> Result<BucketKeys, Failure> {
        let mut found: BTreeMap<u16, Vec<(RowKey, Digest)>> = BTreeMap::new();
        let mut keys = BucketKeys { through: request.buckets.last().copied().unwrap_or(0), ..BucketKeys::default() };
        let prefix = encode_partition(request.partition);
        for row in with_range(&prefix, |range| self.rows.range::<&[u8]>(range)).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let Some(key) = RowKey::decode(Bytes::copy_from_slice(key.value())) else { continue };
            let bucket = bucket_of(&key.place());
            if !request.buckets.contains(&bucket) {
                continue;
            }
            match Row::decode(key.as_bytes(), value.value()) {
                Some(row) if !row.partial => found.entry(bucket).or_default().push((key, row.digest)),
                Some(_) | None => keys.damaged.push(key),
            }
        }
        let mut bytes = 0;
        for (bucket, rows) in found {
            if bytes >= request.bytes_max {
                break;
            }
            bytes += rows.iter().map(|(key, _)| key.as_bytes().len() + size_of::<Digest>()).sum::<usize>();
            if bytes >= request.bytes_max {
                keys.through = bucket;
            }
            keys.keys.extend(rows);
        }
        Ok(keys)
    }
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
