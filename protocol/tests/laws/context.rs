//! A context is a set of dots.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use shoal_protocol::causality::{Context, Dot};
use shoal_protocol::id::Actor;

use super::history::config;

type Ranges = Vec<(u64, u64, u64)>;

fn ranges() -> impl Strategy<Value = Ranges> {
    vec((0..3_u64, 0..20_u64, 0..6_u64).prop_map(|(actor, lo, count)| (actor, lo, lo + count)), 0..12)
}

fn context(ranges: &Ranges) -> Context {
    let mut context = Context::default();
    for (actor, lo, hi) in ranges {
        context.insert_range(Actor(*actor), *lo, *hi);
    }
    context
}

fn naive(ranges: &Ranges) -> BTreeSet<Dot> {
    ranges.iter().flat_map(|(actor, lo, hi)| (lo + 1..=*hi).map(|n| Dot { actor: Actor(*actor), n })).collect()
}

fn dots(context: &Context) -> BTreeSet<Dot> {
    naive(&context.ranges().map(|(actor, lo, hi)| (actor.0, lo, hi)).collect())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_holds_the_dots_of_a_naive_set(a in ranges(), b in ranges()) {
        let (left, right) = (context(&a), context(&b));
        let (all_left, all_right) = (naive(&a), naive(&b));
        prop_assert_eq!(dots(&left), all_left.clone());
        for actor in 0..4 {
            let of_actor: Vec<u64> = all_left.iter().filter(|dot| dot.actor.0 == actor).map(|dot| dot.n).collect();
            prop_assert_eq!(left.max(Actor(actor)), of_actor.last().copied().unwrap_or(0));
            prop_assert_eq!(left.actors().any(|seen| seen == Actor(actor)), !of_actor.is_empty());
            for n in 1..28 {
                prop_assert_eq!(left.covers(Dot { actor: Actor(actor), n }), of_actor.contains(&n));
            }
        }
        prop_assert_eq!(left.covers_all(&right), all_left.is_superset(&all_right));
        let mut joined = left.clone();
        joined.join(&right);
        prop_assert_eq!(dots(&joined), &all_left | &all_right);
    }

    #[test]
    fn equal_sets_are_equal_values(a in ranges()) {
        let built = context(&a);
        let mut parts: Vec<Dot> = naive(&a).into_iter().collect();
        parts.reverse();
        let dotted: Context = parts.into_iter().collect();
        prop_assert_eq!(&dotted, &built);
        prop_assert_eq!(dotted.encode(), built.encode());
        prop_assert_eq!(built.ranges().count(), built.ranges_count());
        let gaps: usize = (0..3).map(|actor| built.gaps_count(Actor(actor))).sum();
        prop_assert_eq!(built.gaps().count(), gaps);
    }
}
