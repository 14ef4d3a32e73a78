//! The stores of one node: where they are, how many there are, and the making of those beside the home store.
//!
//! Shape: the home store is in the data directory itself, store K > 0 in its directory `cell-K`. How many there are is fixed
//! when they are made, and every meta file tells it.
//! Invariant: the home store is made last, by `Engine::open`, so its meta file proves that all were made: from then on a missing
//! one is damage, and without it none of them is in use.

use shoal_protocol::id::Actor;

use super::disk::Disk;
use super::meta::Meta;
use super::open::{
    META_FILE, OpenError, OpenOptions, ROWS_FILE, check_unused, clear_temporary, clear_unfinished, damaged, exists,
    in_file, make, open_file, remove_if_there,
};
use crate::storage::cell::{CELLS_COUNT_MAX, CellId, CellPlace};

/// The directory and options of each store of the node whose home store is on `home`, the home store first. It has `count`
/// of them, if that is said, or as many as it was made with, or one; where there is no home store the others are made now.
/// `incarnation` draws one for each.
///
/// # Errors
/// `OtherCells` when it was made with another number; else see `OpenError`.
///
/// # Panics
/// If `count` is 0 or above `CELLS_COUNT_MAX`.
pub fn prepare<D: Disk>(
    home: &D,
    options: &OpenOptions,
    count: Option<u8>,
    mut incarnation: impl FnMut() -> Actor,
) -> Result<Vec<(D, OpenOptions)>, OpenError> {
    assert!(count.is_none_or(|count| (1..=CELLS_COUNT_MAX).contains(&count)), "{count:?} stores");
    let made = count_made(home, options)?;
    if let (Some(found), Some(count)) = (made, count)
        && found != count
    {
        let place = |count: u8| CellPlace { cell: CellId::HOME, count };
        return Err(OpenError::OtherCells { found: place(found), expected: place(count) });
    }
    let mut cells = Vec::new();
    for place in CellPlace::all(made.or(count).unwrap_or(1)) {
        let disk = if place.cell.is_home() { home.clone() } else { directory(home, place.cell)? };
        cells.push((disk, OpenOptions { place, incarnation: incarnation(), ..*options }));
    }
    if made.is_none() {
        check_none_in_use(home, options)?;
        cells.iter().skip(1).try_for_each(|(disk, options)| make_anew(disk, options))?;
    }
    Ok(cells)
}

/// The directory of a store beside the home store.
///
/// # Errors
/// The disk failed.
pub fn directory<D: Disk>(home: &D, cell: CellId) -> Result<D, OpenError> {
    home.cell(cell).map_err(|error| OpenError::Disk(error.into()))
}

/// How many stores there are, if the home store was made.
fn count_made<D: Disk>(home: &D, options: &OpenOptions) -> Result<Option<u8>, OpenError> {
    if !exists(home, META_FILE)? {
        return Ok(None);
    }
    let meta = Meta::new(open_file(home, options, META_FILE)?);
    let (identity, ..) = in_file(META_FILE, || meta.read())?;
    if identity.format > super::open::FORMAT {
        return Err(OpenError::NewerFormat { found: identity.format });
    }
    let is_bounded = (1..=CELLS_COUNT_MAX).contains(&identity.place.count);
    if !is_bounded {
        return Err(damaged(META_FILE, &format!("it is of store {}", identity.place)));
    }
    Ok(Some(identity.place.count))
}

/// Without a home store there may be the others of a making that was cut short, but none with anything in it.
fn check_none_in_use<D: Disk>(home: &D, options: &OpenOptions) -> Result<(), OpenError> {
    for place in CellPlace::all(CELLS_COUNT_MAX).skip(1) {
        if exists(home, &format!("{}/{ROWS_FILE}", directory_name(place.cell)))? {
            check_unused(&directory(home, place.cell)?, options)?;
        }
    }
    Ok(())
}

/// Makes a store, in place of one that was never used.
fn make_anew<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), OpenError> {
    clear_temporary(disk)?;
    remove_if_there(disk, META_FILE)?;
    clear_unfinished(disk, options)?;
    make(disk, options)
}

/// The name of a store's directory within the home store's.
#[must_use]
pub fn directory_name(cell: CellId) -> String {
    format!("cell-{}", cell.0)
}
