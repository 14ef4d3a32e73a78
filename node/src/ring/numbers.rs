//! Quorum numbers: how many replicas a class has in a layout, and how many of them a request waits for.
//!
//! Shape: N = min(n, nodes); R and W = majority of N when the class asks for 0, else min(r, N), min(w, N). Source: DESIGN §5.

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
}
