//! A rate: a bucket of bytes that fills steadily and holds one second's worth.
//!
//! Units: bytes, `Instant`. Invariant: what is larger than the bucket goes when it is full, and is paid for afterwards.

use std::time::Duration;

use shoal_protocol::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: u64,
    /// Below zero after something larger than the bucket.
    level: i64,
    filled_at: Instant,
}

impl Pace {
    /// Full.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, level: signed(bytes_per_s), filled_at: Instant::default() }
    }

    /// Takes so many bytes out, unless there are none.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        self.fill(now);
        let is_open = self.level > 0;
        if is_open {
            self.level -= signed(bytes as u64);
        }
        is_open
    }

    /// When something can be taken.
    pub(super) fn open_at(&self) -> Instant {
        let missing = u64::try_from(1 - self.level).unwrap_or(0);
        let micros = u128::from(missing) * 1_000_000 / u128::from(self.bytes_per_s.max(1)) + 1;
        let wait = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        if self.level > 0 { self.filled_at } else { self.filled_at + wait }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.since(self.filled_at).as_micros();
        let more = elapsed * u128::from(self.bytes_per_s) / 1_000_000;
        if more > 0 {
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.level = self.level.saturating_add(more).min(signed(self.bytes_per_s));
            self.filled_at = now;
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_through_than_the_rate_allows_and_the_time_it_names_is_the_first() {
        let (mut pace, mut now, mut taken) = (Pace::new(1_000), Instant(5_000_000), 0);
        while now < Instant(15_000_000) {
            if pace.take(now, 300) {
                taken += 300;
            } else {
                let open_at = pace.open_at();
                assert!(open_at > now && !pace.take(Instant(open_at.0 - 2), 300));
                now = open_at;
            }
        }
        assert!((10_000..=11_600).contains(&taken), "{taken} bytes in ten seconds");
    }
}
