//! The room left on the disk: when client writes are refused, and the ballast that is given up when there is none.
//!
//! Shape: `Low` below the reserve, `None` below an eighth of it. At `None` the file `ballast` (an eighth of the reserve) is
//! removed: a copy-on-write tree cannot even delete without room (notes/reliability.md §3). `Enough` again a quarter above
//! the reserve, and then the ballast is made anew. Units: bytes.

use std::io;

use redb::StorageBackend;

use super::Disk;
use crate::storage::effect::Room;

/// Watches one store's disk.
#[derive(Debug)]
pub(super) struct RoomWatch {
    reserve_bytes: u64,
    room: Room,
}

impl RoomWatch {
    /// Looks for the first time, before any file is opened.
    pub(super) fn begin<D: Disk>(disk: &D, reserve_bytes: u64) -> io::Result<Self> {
        let mut watch = Self { reserve_bytes, room: Room::Enough };
        watch.look(disk)?;
        Ok(watch)
    }

    pub(super) fn room(&self) -> Room {
        self.room
    }

    /// Looks again; says what the room is now if that is news.
    pub(super) fn look<D: Disk>(&mut self, disk: &D) -> io::Result<Option<Room>> {
        let free = match disk.free_bytes() {
            // Where the system cannot tell, a full disk is met when it is full.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
            free => free?,
        };
        let before = self.room;
        let enough = if before == Room::Enough { self.reserve_bytes } else { self.reserve_bytes / 4 * 5 };
        self.room = if free < self.reserve_bytes / 8 {
            Room::None
        } else if free < enough {
            Room::Low
        } else {
            Room::Enough
        };
        let has_ballast = disk.exists(BALLAST_FILE)?;
        match self.room {
            Room::None if has_ballast => disk.remove(BALLAST_FILE)?,
            Room::Enough if !has_ballast && free >= self.reserve_bytes + 2 * self.ballast_bytes() => {
                fill(disk, self.ballast_bytes())?;
            }
            Room::None | Room::Low | Room::Enough => {}
        }
        Ok((self.room != before).then_some(self.room))
    }

    fn ballast_bytes(&self) -> u64 {
        self.reserve_bytes / 8
    }
}

/// Written, not only lengthened: a hole takes no room.
fn fill<D: Disk>(disk: &D, bytes: u64) -> io::Result<()> {
    let file = disk.open(BALLAST_FILE)?;
    let zeros = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
        file.set_len(at + piece as u64)?;
        file.write(at, &zeros[..piece])?;
        at += piece as u64;
    }
    file.sync_data()
}

const BALLAST_FILE: &str = "ballast";
const PIECE_BYTES: usize = 1 << 20;
