//! Merge is a join; what surrounds it keeps to it.

use proptest::prelude::*;
use shoal_protocol::object::{Limits, Object, admit, floors_known, merge};
use shoal_protocol::time::WallTime;

use super::history::{config, history, history_and_parts, shown};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn merge_is_commutative_associative_and_idempotent((_, parts) in history_and_parts(3)) {
        let [a, b, c] = [&parts[0], &parts[1], &parts[2]];
        prop_assert_eq!(merge(a, b), merge(b, a));
        prop_assert_eq!(merge(&merge(a, b), c), merge(a, &merge(b, c)));
        prop_assert_eq!(&merge(a, a), a);
        prop_assert_eq!(merge(&merge(a, b), b), merge(a, b));
    }

    #[test]
    fn the_delta_for_an_old_state_does_what_the_whole_new_one_does((_, parts) in history_and_parts(3)) {
        let [old, other, third] = [&parts[0], &parts[1], &parts[2]];
        for new in [other.clone(), merge(old, other), old.clone()] {
            let delta = new.delta_for(old);
            prop_assert_eq!(merge(old, &delta), merge(old, &new));
            prop_assert_eq!(merge(&merge(third, &delta), &new), merge(third, &new));
            let decoded = Object::decode(&delta.encode());
            prop_assert_eq!(decoded.as_ref().map(Object::weight), Ok(delta.weight()));
        }
        prop_assert_eq!(old.delta_for(old), Object::default());
        let mut pruned = merge(old, other);
        pruned.prune_lww();
        prop_assert_eq!(merge(old, &pruned.delta_for(old)), merge(old, &pruned));
    }

    #[test]
    fn deltas_in_any_order_any_number_of_times_make_one_state(
        (history, order) in history().prop_flat_map(|history| {
            let count = history.deltas.len();
            let order = prop::collection::vec(0..count.max(1), 2 * count);
            (Just(history), order)
        })
    ) {
        let mut forward = Object::default();
        for made in &history.deltas {
            forward.merge_into(&made.delta);
        }
        let mut shuffled = Object::default();
        for at in order {
            shuffled.merge_into(&history.deltas[at].delta);
        }
        for made in history.deltas.iter().rev() {
            shuffled.merge_into(&made.delta);
        }
        prop_assert_eq!(&shuffled, &forward);
        prop_assert_eq!(shuffled.encode(), forward.encode());
        let joined = history.states.iter().fold(Object::default(), |all, state| merge(&all, state));
        prop_assert_eq!(&joined, &forward);
    }

    #[test]
    fn weight_is_the_state_s_own_and_not_its_history_s((_, parts) in history_and_parts(2)) {
        let joined = merge(&parts[0], &parts[1]);
        prop_assert_eq!(Object::decode(&joined.encode()).unwrap().weight(), joined.weight());
    }

    #[test]
    fn a_session_may_have_made_every_delta_it_bound(history in history()) {
        for made in history.deltas.iter().filter(|made| made.dot.actor.is_session()) {
            prop_assert_eq!(made.delta.authored_by(made.dot.actor, made.observed.context()), Ok(made.dot));
            prop_assert!(floors_known(&made.observed, &made.delta));
        }
    }

    #[test]
    fn what_is_applied_is_admitted_again(history in history()) {
        let none = Limits {
            value_bytes_max: 1, siblings_max: 0, map_depth_max: 8, object_bytes_max: 0, session_actors_max: 0, gaps_max: 0,
        };
        let state = history.deltas.iter().fold(Object::default(), |all, made| merge(&all, &made.delta));
        for made in &history.deltas {
            let limits = Limits { value_bytes_max: 8, ..none };
            prop_assert_eq!(admit(&state, &made.delta, &limits, WallTime(0)), Ok(()));
        }
    }

    #[test]
    fn pruning_shows_the_same_and_still_converges((_, parts) in history_and_parts(2)) {
        let prune = |object: &Object| {
            let mut pruned = object.clone();
            pruned.prune_lww();
            pruned
        };
        let [a, b] = [&parts[0], &parts[1]];
        prop_assert_eq!(&shown(&prune(a))[1], &shown(a)[1]);
        prop_assert_eq!(prune(&prune(a)), prune(a));
        prop_assert_eq!(merge(&prune(a), b), merge(b, &prune(a)));
        let late = prune(&merge(a, b));
        prop_assert_eq!(merge(&merge(&prune(a), &prune(b)), &late), merge(&late, &merge(&prune(a), &prune(b))));
        prop_assert_eq!(Object::decode(&late.encode()).unwrap().weight(), late.weight());
    }

    #[test]
    fn equal_states_look_equal_and_vacant_ones_absent((_, parts) in history_and_parts(1)) {
        let decoded = Object::decode(&parts[0].encode()).unwrap();
        prop_assert_eq!(shown(&decoded), shown(&parts[0]));
        if parts[0].is_vacant() {
            prop_assert!(shown(&parts[0]).iter().all(|view| *view == shoal_protocol::object::View::Absent));
        }
    }
}
