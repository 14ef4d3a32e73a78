//! All the randomness of one history: one seeded ChaCha8.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The generator, with the draws that a simulation needs.
#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    /// A place among `count` of something.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("it is below a count")
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a hundred draws.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < u64::from(chance)
    }

    /// True in so many of a thousand draws.
    pub fn permille(&mut self, chance: u32) -> bool {
        self.below(1000) < u64::from(chance)
    }

    /// One of `items`, of which there is at least one.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// A random part of `items`, in random order.
    pub fn some<T>(&mut self, items: Vec<T>) -> Vec<T> {
        let mut items = self.shuffled(items);
        items.truncate(self.index(items.len() + 1));
        items
    }

    /// The items in random order.
    pub fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for at in (1..items.len()).rev() {
            items.swap(at, self.index(at + 1));
        }
        items
    }

    /// A duration between two numbers of µs.
    pub fn micros(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_micros(self.between(low, high))
    }

    /// A duration between two numbers of ms.
    pub fn millis(&mut self, (low, high): (u64, u64)) -> Duration {
        self.micros((low * 1000, high * 1000))
    }

    /// A seed for another generator.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }

    /// The generator itself, for code that takes one.
    pub fn generator(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }
}
