//! Writing sorted pairs into a table that may hold some of them.
//!
//! Shape: a key that is there is read and replaced. One that is not opens a cursor, and all pairs that belong into the same
//! gap go through it: redb buffers them into full pages, which is what makes a load into an empty range fast.

use std::borrow::Cow;
use std::ops::Bound;

use redb::{ReadableTable, Table};

use crate::storage::effect::Failure;
use crate::storage::engine::failed;

/// A table of bytes, in a write transaction.
pub(super) type Bytes<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// Something to be written under its key.
pub(super) trait Pair {
    /// Where.
    fn key(&self) -> &[u8];
}

/// Writes `pairs`, whose keys ascend, until their values exceed `bytes_max`, and says how many it dealt with. `value` makes
/// the value from what stands there; `None` leaves that alone.
pub(super) fn write_sorted<'p, T: Pair>(
    table: &mut Bytes<'_>,
    pairs: &'p [T],
    bytes_max: usize,
    mut value: impl FnMut(&'p T, Option<&[u8]>) -> Result<Option<Cow<'p, [u8]>>, Failure>,
) -> Result<usize, Failure> {
    let (mut done, mut bytes) = (0, 0);
    while done < pairs.len() && bytes < bytes_max {
        let first = &pairs[done];
        let beneath = table.get(first.key()).map_err(failed)?;
        let replaced = beneath.map(|beneath| value(first, Some(beneath.value()))).transpose()?;
        if let Some(new) = replaced {
            if let Some(new) = new {
                bytes += new.len();
                table.insert(first.key(), &*new).map_err(failed)?;
            }
            done += 1;
            continue;
        }
        let mut gap = table.lower_bound_mut(Bound::Included(first.key())).map_err(failed)?;
        let end = gap.peek_next().map_err(failed)?.map(|(key, _)| key.value().to_vec());
        while let Some(pair) = pairs.get(done)
            && bytes < bytes_max
            && end.as_deref().is_none_or(|end| pair.key() < end)
        {
            if let Some(new) = value(pair, None)? {
                bytes += new.len();
                gap.insert_before(pair.key(), &*new).map_err(failed)?;
            }
            done += 1;
        }
        gap.close().map_err(failed)?;
    }
    Ok(done)
}
