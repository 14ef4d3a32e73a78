//! How much a store may take, in memory and of its log.

use std::time::Duration;

/// The bounds of one store, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Decoded objects of memtables and cache together, bytes. The memtables may take half of it; the cache gets the rest.
    pub bytes: usize,
    /// The log, bytes. At half of it the memtable is flushed, however small: a write alone takes a block of the log.
    pub log_bytes: usize,
}

impl Budget {
    pub(super) const fn memtables_bytes_max(self) -> usize {
        self.bytes / 2
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
