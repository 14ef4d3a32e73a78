//! One row: what is new joined with what stands there.
//!
//! Invariants: an unreadable row is never taken for an absent one: what is flushed over it stays marked until a whole state
//! heals it. In an `lww` keyspace only the winner of concurrent values reaches the file.

use std::borrow::Cow;

use bytes::Bytes;
use shoal_protocol::id::Lsn;
use shoal_protocol::object::{Digest, Object};

use crate::storage::effect::Failure;
use crate::storage::key::RowKey;
use crate::storage::memtable::Entry;
use crate::storage::row::Row;
use crate::storage::rowset::IngestRow;

use super::Rules;
use super::sorted::Pair;

/// What is joined into a row.
pub(super) trait Source: Pair {
    /// The row, given what stands there; `None` if that is it already.
    fn join(&self, rules: &Rules<'_>, beneath: Option<&[u8]>) -> Result<Option<Joined<'_>>, Failure>;
}

/// A row as it is to be written, and what changes by it.
#[derive(Debug)]
pub(super) struct Joined<'a> {
    pub(super) value: Vec<u8>,
    pub(super) change: Change<'a>,
}

/// How one row changed.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    pub(super) key: &'a RowKey,
    /// The bucket of its partition.
    pub(super) bucket: u16,
    pub(super) before: Before,
    pub(super) digest: Digest,
    pub(super) lsn: Lsn,
}

/// What a row was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Absent,
    Row(Digest),
    /// There was one, and nobody knows its digest.
    Unreadable,
}

/// A memtable's entry.
pub(super) struct Frozen<'a> {
    pub(super) key: &'a RowKey,
    pub(super) entry: &'a Entry,
}

impl Pair for Frozen<'_> {
    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl Source for Frozen<'_> {
    fn join(&self, rules: &Rules<'_>, beneath: Option<&[u8]>) -> Result<Option<Joined<'_>>, Failure> {
        let lww = rules.lww.contains(&self.key.keyspace());
        let mut row = Beneath::read(self.key, beneath);
        row.partial &= !self.entry.heals;
        let object = if row.before == Before::Absent && !lww {
            self.entry.encoded()
        } else {
            let mut object = std::mem::take(&mut row.object);
            object.merge_into(&self.entry.object());
            Cow::Owned(encode(object, lww).into())
        };
        Ok(Some(row.replaced_by(self.key, &object, self.entry.lsn, rules)))
    }
}

impl Pair for IngestRow {
    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl Source for IngestRow {
    fn join(&self, rules: &Rules<'_>, beneath: Option<&[u8]>) -> Result<Option<Joined<'_>>, Failure> {
        let lww = rules.lww.contains(&self.key.keyspace());
        let mut row = Beneath::read(&self.key, beneath);
        if row.before == Before::Absent && !lww {
            return Ok(Some(row.replaced_by(&self.key, &self.object, self.lsn, rules)));
        }
        let incoming = Object::decode(&self.object)
            .map_err(|_| Failure::Damaged { reason: format!("what is loaded for {:?} is no object", self.key) })?;
        let mut object = std::mem::take(&mut row.object);
        object.merge_into(&incoming);
        let object = encode(object, lww);
        // A transfer that is resumed brings much that is here already.
        Ok((row.stored != Some(&object[..])).then(|| row.replaced_by(&self.key, &object, self.lsn, rules)))
    }
}

/// What stands in a row's place.
struct Beneath<'a> {
    before: Before,
    /// Canonical bytes, if they can be read.
    stored: Option<&'a [u8]>,
    object: Object,
    lsn: Lsn,
    partial: bool,
}

impl<'a> Beneath<'a> {
    fn read(key: &RowKey, value: Option<&'a [u8]>) -> Self {
        let (object, lsn) = (Object::default(), Lsn::default());
        let absent = Self { before: Before::Absent, stored: None, object, lsn, partial: false };
        let Some(value) = value else { return absent };
        let row = Row::decode(key.as_bytes(), value);
        match row.and_then(|row| Some((Object::decode(row.object).ok()?, row))) {
            Some((object, row)) => Self {
                before: Before::Row(row.digest),
                stored: Some(row.object),
                object,
                lsn: row.lsn,
                partial: row.partial,
            },
            None => Self { before: Before::Unreadable, partial: true, ..absent },
        }
    }

    fn replaced_by<'k>(&self, key: &'k RowKey, object: &[u8], lsn: Lsn, rules: &Rules<'_>) -> Joined<'k> {
        let place = key.place();
        let (lsn, digest) = (self.lsn.max(lsn), Digest::of_encoded(rules.digest_key, &place, object));
        let value = Row { lsn, digest, object, partial: self.partial }.encode(key.as_bytes());
        let bucket = super::digests::bucket_of(&place);
        Joined { value, change: Change { key, bucket, before: self.before, digest, lsn } }
    }
}

fn encode(mut object: Object, lww: bool) -> Bytes {
    if lww {
        object.prune_lww();
    }
    object.encode()
}
