//! When to ask one replica more: the 95th percentile of recent read answers.
//!
//! Shape: the last `SAMPLES_COUNT` latencies in a ring; the percentile is recomputed every `REFRESH_COUNT` samples.
//! Units: `Duration` on the monotonic clock. Source: Dean & Barroso, The Tail at Scale (2013), hedged requests.

use std::time::Duration;

/// Recent latencies of replica reads.
#[derive(Debug)]
pub(crate) struct Hedge {
    samples: Vec<Duration>,
    next: usize,
    delay: Duration,
}

impl Hedge {
    pub(crate) fn new() -> Self {
        Self { samples: Vec::new(), next: 0, delay: DELAY_FIRST }
    }

    /// A replica answered after `latency`.
    pub(crate) fn record(&mut self, latency: Duration) {
        if self.samples.len() < SAMPLES_COUNT {
            self.samples.push(latency);
        } else {
            self.samples[self.next % SAMPLES_COUNT] = latency;
        }
        self.next += 1;
        if self.next.is_multiple_of(REFRESH_COUNT) {
            let mut sorted = self.samples.clone();
            sorted.sort_unstable();
            self.delay = sorted[sorted.len() * 95 / 100].clamp(DELAY_MIN, DELAY_MAX);
        }
    }

    /// How long to wait for the replicas asked first.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }
}

/// Enough for a stable 95th percentile, few enough to follow a change within seconds.
const SAMPLES_COUNT: usize = 256;
/// Sorting 256 samples every 64 answers is below 0.1 µs an answer.
const REFRESH_COUNT: usize = 64;
/// Before anything was measured. Guess, to be measured by the benchmarks.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// Below this a hedge costs more than it saves.
const DELAY_MIN: Duration = Duration::from_millis(2);
/// A replica slower than this is asked around in any case.
const DELAY_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_the_slow_tail() {
        let mut hedge = Hedge::new();
        for i in 0..100u64 {
            hedge.record(Duration::from_millis(if i % 10 == 0 { 40 } else { 3 }));
        }
        assert_eq!(hedge.delay(), Duration::from_millis(40));
        for _ in 0..SAMPLES_COUNT {
            hedge.record(Duration::from_millis(3));
        }
        assert_eq!(hedge.delay(), Duration::from_millis(3));
    }
}
