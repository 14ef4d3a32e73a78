//! How much was joined here for the sake of repair, by cause. What a client wrote is not counted.

use shoal_protocol::peer::ApplyCause;

/// Since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// After a read found this replica behind.
    pub read_repair: Joined,
    /// Owed, or kept as a hint.
    pub handoff: Joined,
    /// Found by comparing trees.
    pub exchange: Joined,
}

/// Deltas joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// How many.
    pub keys: u64,
    /// Their canonical bytes.
    pub bytes: u64,
}

impl Repaired {
    pub(super) fn count(&mut self, cause: ApplyCause, bytes: usize) {
        let joined = match cause {
            ApplyCause::Write => return,
            ApplyCause::ReadRepair => &mut self.read_repair,
            ApplyCause::Handoff => &mut self.handoff,
            ApplyCause::Exchange => &mut self.exchange,
        };
        joined.keys += 1;
        joined.bytes += bytes as u64;
    }

    /// Adds what another cell joined.
    pub fn add(&mut self, other: &Self) {
        let mine = [&mut self.read_repair, &mut self.handoff, &mut self.exchange];
        for (mine, theirs) in mine.into_iter().zip([other.read_repair, other.handoff, other.exchange]) {
            mine.keys += theirs.keys;
            mine.bytes += theirs.bytes;
        }
    }
}
