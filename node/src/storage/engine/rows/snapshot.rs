//! A snapshot: the tables as of one commit, open.
//!
//! Invariant: everything read from one snapshot belongs together: rows, digests, feed, and the `replay_from` they hold.

use std::fmt;

use redb::{Database, ReadOnlyTable, ReadableDatabase};
use shoal_protocol::id::Lsn;

use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::progress::RowsAt;

use super::{COUNTS, DIGESTS, DROPS, FEED, INGESTED, PIECES, REPLAY_FROM, ROWS, STATE, STORE_ID, state_number};

/// The file as of one commit.
pub(in crate::storage) struct Snapshot {
    pub(super) rows: ReadBytes,
    pub(super) digests: ReadBytes,
    pub(super) feed: ReadBytes,
    pub(super) counts: ReadBytes,
    pub(super) store_id: u64,
    /// What is in the rows.
    pub(in crate::storage) at: RowsAt,
}

/// A table of bytes, to be read.
pub(super) type ReadBytes = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Snapshot {
    /// The last commit.
    pub(super) fn take(database: &Database) -> Result<Self, Failure> {
        let transaction = database.begin_read().map_err(failed)?;
        let state = transaction.open_table(STATE).map_err(failed)?;
        let number = |name: &str| {
            let sealed = state.get(name).map_err(failed)?;
            state_number(name, sealed.as_ref().map(|sealed| sealed.value()))
        };
        let count = |name| if state.get(name).map_err(failed)?.is_some() { number(name) } else { Ok(0) };
        Ok(Self {
            rows: transaction.open_table(ROWS).map_err(failed)?,
            digests: transaction.open_table(DIGESTS).map_err(failed)?,
            feed: transaction.open_table(FEED).map_err(failed)?,
            counts: transaction.open_table(COUNTS).map_err(failed)?,
            store_id: number(STORE_ID)?,
            at: RowsAt {
                replay_from: Lsn(number(REPLAY_FROM)?),
                ingested: Lsn(number(INGESTED)?),
                pieces: count(PIECES)?,
                drops: count(DROPS)?,
            },
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("at", &self.at).finish_non_exhaustive()
    }
}
