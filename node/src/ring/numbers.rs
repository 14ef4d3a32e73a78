//! Quorum numbers: how many replicas a class has in a layout, and how many of them a request waits for.
//!
//! Shape: N = min(n, nodes); R and W = majority of N when the class asks for 0, else min(r, N), min(w, N).
//! Of a layout on its way out: P = N - W + 1 holders have every acknowledged write among them; once F = max(N - R + 1, N - W + 1,
//! N / 2 + 1, W) refuse requests that do not know its successor, nobody reads or writes under it alone, and no two nodes retire
//! it unknown to each other. Of a successor: S = max(N - R + 1, W) holders that have everything meet every read, and survive
//! W - 1 losses. Source: DESIGN §5 (Numbers), each less 1 was caught by random histories.

use shoal_protocol::id::Class;

/// The numbers of one class in one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Replicas there are.
    pub n: u8,
    /// Replies a read waits for.
    pub r: u8,
    /// Acks a write waits for.
    pub w: u8,
    /// Whether the layout has fewer nodes than the class wants replicas.
    pub under_replicated: bool,
}

impl Numbers {
    /// The numbers of `class` in a layout with `nodes` holders.
    #[must_use]
    pub fn of(class: Class, nodes: usize) -> Self {
        let n = class.n.min(u8::try_from(nodes).unwrap_or(u8::MAX));
        let asked = |count: u8| if count == 0 { n / 2 + 1 } else { count }.min(n);
        Self { n, r: asked(class.r), w: asked(class.w), under_replicated: n < class.n }
    }

    /// P: holders that have every acknowledged write among them.
    #[must_use]
    pub const fn pulls(self) -> usize {
        (self.n - self.w) as usize + 1
    }

    /// P of the others, for a holder that has lost what it held: with W = 1 it takes them all, and may not be enough.
    #[must_use]
    pub fn pulls_of_others(self) -> usize {
        self.pulls().min(usize::from(self.n.saturating_sub(1)))
    }

    /// F: holders that have to know a layout's successor before it is retired.
    #[must_use]
    pub fn fences(self) -> usize {
        let Self { n, r, w, .. } = self;
        usize::from((n - r + 1).max(n - w + 1).max(n / 2 + 1).max(w))
    }

    /// S: holders that have to have everything before the layout before theirs is retired.
    #[must_use]
    pub fn syncs(self) -> usize {
        let Self { n, r, w, .. } = self;
        usize::from((n - r + 1).max(w))
    }
}

/// Most replicas a keyspace may have: with more, a quorum is slower than losing one is likely.
pub const REPLICAS_MAX: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: u8, r: u8, w: u8, nodes: usize) -> (u8, u8, u8, bool) {
        let x = Numbers::of(Class { n, r, w }, nodes);
        (x.n, x.r, x.w, x.under_replicated)
    }

    #[test]
    fn a_small_layout_shrinks_every_number() {
        assert_eq!(numbers(3, 0, 0, 5), (3, 2, 2, false));
        assert_eq!(numbers(3, 0, 0, 2), (2, 2, 2, true));
        assert_eq!(numbers(3, 0, 0, 1), (1, 1, 1, true));
        assert_eq!(numbers(3, 3, 1, 2), (2, 2, 1, true));
        assert_eq!(numbers(4, 0, 0, 9), (4, 3, 3, false));
        assert_eq!(numbers(3, 0, 0, 1000), (3, 2, 2, false));
    }

    #[test]
    fn the_numbers_of_a_transition_make_quorums_meet() {
        for (n, r, w) in (1..=7u8).flat_map(|n| (0..=n).flat_map(move |r| (0..=n).map(move |w| (n, r, w)))) {
            let x = Numbers::of(Class { n, r, w }, 9);
            let [n, r, w] = [x.n, x.r, x.w].map(usize::from);
            assert!(x.pulls() + w > n, "who pulls meets every write");
            assert!(x.fences() + r > n && x.fences() + w > n && 2 * x.fences() > n && x.fences() >= w);
            assert!(x.syncs() + r > n && x.syncs() >= w);
            assert!(x.pulls() <= n && x.fences() <= n && x.syncs() <= n);
        }
    }
}
