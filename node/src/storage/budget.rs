//! How much a store may take, in memory and of its log.

use std::time::Duration;

/// The bounds of one store, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Memtables and the cache of decoded objects together, bytes. The memtables may take seven eighths of it; the cache gets
    /// the rest.
    pub bytes: usize,
    /// The log, bytes. At half of it the memtable is flushed, however small: a write alone takes a block of the log.
    pub log_bytes: usize,
}

impl Budget {
    /// What each of so many stores gets of it.
    #[must_use]
    pub fn shared_by(self, count: u8) -> Self {
        let share = |whole: usize| (whole / usize::from(count.max(1))).max(1);
        Self { bytes: share(self.bytes), log_bytes: share(self.log_bytes) }
    }

    /// What the active memtable holds when it is frozen: the more, the fewer pages are written per row.
    pub(super) const fn memtable_bytes_max(self) -> usize {
        self.bytes / 8 * 5
    }

    /// What both memtables may hold. From where one is frozen up to here writers are slowed.
    pub(super) const fn memtables_bytes_max(self) -> usize {
        self.bytes / 8 * 7 + 1
    }

    /// What is left to the cache beside memtables of so many bytes: some of it always, or nothing read would stay to be shown.
    pub(super) const fn cache_bytes_max(self, memtables_bytes: usize) -> usize {
        let least = self.bytes / 8;
        let left = self.bytes.saturating_sub(memtables_bytes);
        if left > least { left } else { least }
    }

    /// What a flush takes at once, and gives back at once.
    pub(super) const fn piece_bytes_max(self) -> usize {
        self.bytes / 16
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 256 << 20, log_bytes: 512 << 20 }
    }
}

/// How long the answer to a write is held back at this pressure: nothing at 0, so that a store that keeps up costs nothing;
/// rising smoothly, so that closed-loop writers come down to the speed of the flush before anything is refused.
#[must_use]
pub fn slowdown(pressure: f32) -> Duration {
    SLOWDOWN_MAX.mul_f32(pressure.clamp(0.0, 1.0).powi(2))
}

/// At full pressure. Guess: 64 writers then do 1,280 writes a second, far below any flush.
const SLOWDOWN_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_slowed_smoothly() {
        assert_eq!(slowdown(0.0), Duration::ZERO);
        assert!(slowdown(1.0).abs_diff(SLOWDOWN_MAX) < Duration::from_micros(1));
        let delays: Vec<Duration> = (0..=100_u8).map(|percent| slowdown(f32::from(percent) / 100.0)).collect();
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= SLOWDOWN_MAX / 40));
    }
}
