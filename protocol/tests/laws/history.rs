//! Random histories: who does what, having seen what.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use shoal_protocol::causality::Dot;
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Conflict, Element, Mint, Object, Operation, Value, View, bind, own_total};
use shoal_protocol::time::{Hlc, WallTime};

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `minter` does `operation`, after skipping `skip` numbers; it has forgotten its last dot if `forgot`.
    Do { minter: usize, operation: Operation, skip: u64, forgot: bool },
    /// `to` learns all that `from` knows.
    Learn { from: usize, to: usize },
}

/// What a history left behind.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) deltas: Vec<Made>,
    pub(crate) states: Vec<Object>,
}

/// A delta and what its minter had seen.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) delta: Object,
    pub(crate) observed: Object,
    pub(crate) dot: Dot,
}

/// Minters: two sessions and a store incarnation.
pub(crate) const MINTERS: [Actor; 3] = [Actor::session(20_000, 1), Actor::session(20_000, 2), Actor::incarnation(3)];

/// The same cases in every run, unless the environment asks for others.
pub(crate) fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match config.rng_seed {
        RngSeed::Random => ProptestConfig { rng_seed: RngSeed::Fixed(1), cases: config.cases.max(CASES), ..config },
        RngSeed::Fixed(_) => config,
    }
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    vec(step(operation()), 1..24).prop_map(|steps| run(&steps))
}

/// The history and, per state asked for, which of its deltas are in it.
pub(crate) fn history_and_parts(parts: usize) -> impl Strategy<Value = (History, Vec<Object>)> {
    (history(), vec(vec(any::<bool>(), 24), parts)).prop_map(|(history, parts)| {
        let states = parts.iter().map(|picked| {
            let mut state = Object::default();
            for (made, picked) in history.deltas.iter().zip(picked) {
                if *picked {
                    state.merge_into(&made.delta);
                }
            }
            state
        });
        let states = states.collect();
        (history, states)
    })
}

pub(crate) fn run(steps: &[Step]) -> History {
    let mut history = History { deltas: Vec::new(), states: vec![Object::default(); MINTERS.len()] };
    let mut last = [0; MINTERS.len()];
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Learn { from, to } => {
                let theirs = history.states[*from].clone();
                history.states[*to].merge_into(&theirs);
            }
            Step::Do { minter, operation, skip, forgot } => {
                let (actor, state) = (MINTERS[*minter], &mut history.states[*minter]);
                let dot = Dot { actor, n: last[*minter] + 1 + skip };
                let prev = if *forgot { dot.n - 1 } else { last[*minter] };
                last[*minter] = dot.n;
                let total = operation.counter_path().and_then(|path| {
                    own_total(state, actor, &path).plus(operation.counter_by().expect("it has a counter path"))
                });
                let hlc = Hlc((at as u64 * 7) % 40);
                let observed = state.clone();
                let delta = bind(operation, &Mint { dot, prev, hlc, total }, state).expect("it binds");
                state.merge_into(&delta);
                history.deltas.push(Made { delta, observed, dot });
            }
        }
    }
    history
}

pub(crate) fn step(operation: impl Strategy<Value = Operation>) -> impl Strategy<Value = Step> {
    let minter = 0..MINTERS.len();
    prop_oneof![
        3 => (minter.clone(), operation, 0..3_u64, prop::bool::weighted(0.1))
            .prop_map(|(minter, operation, skip, forgot)| Step::Do { minter, operation, skip, forgot }),
        1 => (minter.clone(), minter).prop_map(|(from, to)| Step::Learn { from, to }),
    ]
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let leaf = prop_oneof![
        value().prop_map(|value| Operation::Put { value }),
        value().prop_map(|value| Operation::Replace { value }),
        value().prop_map(|value| Operation::AddSibling { value }),
        Just(Operation::Delete),
        Just(Operation::Enable),
        Just(Operation::Disable),
        element().prop_map(|element| Operation::SetAdd { element }),
        element().prop_map(|element| Operation::SetAdd { element }),
        element().prop_map(|element| Operation::SetRemove { element }),
        Just(Operation::SetClear),
        (-5..9_i64).prop_map(|by| Operation::CounterAdd { by }),
        Just(Operation::CounterReset),
        field().prop_map(|field| Operation::MapRemove { field }),
    ];
    leaf.prop_recursive(2, 4, 1, |inner| {
        (field(), inner).prop_map(|(field, operation)| Operation::MapUpdate { field, operation: Box::new(operation) })
    })
}

pub(crate) fn shown(object: &Object) -> [View; 2] {
    [Conflict::Siblings, Conflict::Lww].map(|conflict| object.view(conflict, WallTime(5)))
}

fn value() -> impl Strategy<Value = Value> {
    (0..4_u8, prop::option::weighted(0.2, 0..10_u64))
        .prop_map(|(byte, end)| Value { expires_at: end.map(WallTime), ..Value::json(vec![byte]) })
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        (0..3_u8).prop_map(|n| Element::Text(format!("e{n}"))),
        (-300..300_i64).prop_map(|n| Element::Int(n / 200)),
        Just(Element::Bytes(vec![0, 255].into())),
    ]
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![Just("f".to_owned()), Just("g".to_owned())]
}

/// Cases per law: a second or two for all laws together.
const CASES: u32 = 2_000;
