//! Where the `crdts` crate is sound (`Orswot`, `PNCounter` under state merges), it agrees.

use std::collections::BTreeSet;

use crdts::{CmRDT, CvRDT, Orswot, PNCounter};
use proptest::collection::vec;
use proptest::prelude::*;
use shoal_protocol::causality::Dot;
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Conflict, Element, Mint, Object, Operation, View, bind, own_total};
use shoal_protocol::time::{Hlc, WallTime};

use super::history::config;

/// Three replicas of one object, each minting under its own actor.
#[derive(Default)]
struct Replicas {
    objects: [Object; 3],
    minted: [u64; 3],
}

impl Replicas {
    fn apply(&mut self, at: usize, operation: &Operation) {
        let (actor, object) = (Actor(at as u64 + 1), &mut self.objects[at]);
        let prev = self.minted[at];
        self.minted[at] += 1;
        let total = operation
            .counter_path()
            .and_then(|path| own_total(object, actor, &path).plus(operation.counter_by().unwrap_or_default()));
        let mint = Mint { dot: Dot { actor, n: prev + 1 }, prev, hlc: Hlc(0), total };
        let delta = bind(operation, &mint, object).expect("it binds");
        object.merge_into(&delta);
    }

    fn merge(&mut self, from: usize, to: usize) {
        let theirs = self.objects[from].clone();
        self.objects[to].merge_into(&theirs);
    }

    fn view(&self, at: usize) -> View {
        self.objects[at].view(Conflict::Siblings, WallTime(0))
    }
}

#[derive(Clone, Debug)]
enum SetStep {
    Add(usize, i64),
    Remove(usize, i64),
    Clear(usize),
    Merge(usize, usize),
}

fn set_step() -> impl Strategy<Value = SetStep> {
    let (at, element) = (0..3_usize, 0..4_i64);
    prop_oneof![
        3 => (at.clone(), element.clone()).prop_map(|(at, element)| SetStep::Add(at, element)),
        2 => (at.clone(), element).prop_map(|(at, element)| SetStep::Remove(at, element)),
        1 => at.clone().prop_map(SetStep::Clear),
        2 => (at.clone(), at).prop_map(|(from, to)| SetStep::Merge(from, to)),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sets_agree_with_orswot(steps in vec(set_step(), 1..60)) {
        let mut replicas = Replicas::default();
        let mut orswots: [Orswot<i64, u64>; 3] = Default::default();
        for step in steps {
            match step {
                SetStep::Add(at, element) => {
                    replicas.apply(at, &Operation::SetAdd { element: Element::Int(element) });
                    let op = orswots[at].add(element, orswots[at].read_ctx().derive_add_ctx(at as u64));
                    orswots[at].apply(op);
                }
                SetStep::Remove(at, element) => {
                    replicas.apply(at, &Operation::SetRemove { element: Element::Int(element) });
                    let op = orswots[at].rm(element, orswots[at].contains(&element).derive_rm_ctx());
                    orswots[at].apply(op);
                }
                SetStep::Clear(at) => {
                    replicas.apply(at, &Operation::SetClear);
                    let op = orswots[at].rm_all(0..4, orswots[at].read_ctx().derive_rm_ctx());
                    orswots[at].apply(op);
                }
                SetStep::Merge(from, to) => {
                    replicas.merge(from, to);
                    let theirs = orswots[from].clone();
                    orswots[to].merge(theirs);
                }
            }
            for (at, orswot) in orswots.iter().enumerate() {
                let theirs: BTreeSet<i64> = orswot.read().val.into_iter().collect();
                let theirs: Vec<Element> = theirs.into_iter().map(Element::Int).collect();
                let theirs = if theirs.is_empty() { View::Absent } else { View::Set(theirs) };
                prop_assert_eq!(replicas.view(at), theirs);
            }
        }
    }

    #[test]
    fn counters_agree_with_pn_counter(steps in vec((0..3_usize, 0..3_usize, -9..9_i64), 1..60)) {
        let mut replicas = Replicas::default();
        let mut counters: [PNCounter<u64>; 3] = Default::default();
        for (at, from, by) in steps {
            if at == from {
                replicas.apply(at, &Operation::CounterAdd { by });
                let steps = by.unsigned_abs();
                let op = if by < 0 {
                    counters[at].dec_many(at as u64, steps)
                } else {
                    counters[at].inc_many(at as u64, steps)
                };
                counters[at].apply(op);
            } else {
                replicas.merge(from, at);
                let theirs = counters[from].clone();
                counters[at].merge(theirs);
            }
            for (at, counter) in counters.iter().enumerate() {
                let ours = match replicas.view(at) {
                    View::Absent => 0,
                    View::Counter(value) => value,
                    view @ (View::Register { .. } | View::Flag(_) | View::Set(_) | View::Map(_) | View::Conflict(_)) => {
                        panic!("{view:?} is no counter")
                    }
                };
                prop_assert_eq!(ours.to_string(), counter.read().to_string());
            }
        }
    }
}
