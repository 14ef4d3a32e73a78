//! The session against a model: one replica per key that merges what it is given, and an account of what each operation
//! may have done. Histories are random in operations, in the fate of every attempt and in the order of verdicts.

use proptest::prelude::*;
use shoal_protocol::client::{KeyspaceLayout, QuorumMode};
use shoal_protocol::id::{Actor, Class, KeyspaceId};
use shoal_protocol::object::{Conflict, Element, View, merge};
use shoal_protocol::time::Instant;

use super::*;

const DAY_MS: u64 = 86_400_000;
const SPEC: KeyspaceSpec = KeyspaceSpec {
    class: Class { n: 3, r: 0, w: 0 },
    layout: KeyspaceLayout::Key,
    conflict: Conflict::Siblings,
    quorum: QuorumMode::Strict,
    ttl_s: None,
};

fn session() -> Session {
    Session::new(SessionGrant { actor: Actor::session(10, 7), mac: [0; 16] })
}

fn now() -> Now {
    Now { instant: Instant(0), wall: WallTime(5 * DAY_MS) }
}

fn place(n: u8) -> Place {
    Place { keyspace: KeyspaceId(1), collection: Bytes::new(), key: Bytes::from(vec![n]) }
}

fn add(by: i64) -> Operation {
    Operation::CounterAdd { by }
}

fn put(text: &'static str) -> Operation {
    Operation::AddSibling { value: Value::json(text) }
}

fn blind(session: &mut Session, place: &Place, operation: &Operation) -> Result<BoundOperation, BindError> {
    bind_on(session, place, operation, &Observed::default())
}

fn bind_on(
    session: &mut Session,
    place: &Place,
    operation: &Operation,
    observed: &Observed,
) -> Result<BoundOperation, BindError> {
    session.bind(now(), &Intent { place, spec: &SPEC, operation, observed, w: None, quorum: None })
}

fn delta(bound: &BoundOperation) -> Object {
    Object::decode(&bound.delta).unwrap()
}

/// What the counter of this object shows, beside whatever else is there.
fn count(object: &Object) -> i64 {
    let counter = |view: &View| if let View::Counter(n) = view { Some(*n) } else { None };
    let view = object.view(Conflict::Siblings, now().wall);
    let shown = if let View::Conflict(views) = &view { views.iter().find_map(counter) } else { counter(&view) };
    shown.unwrap_or(0)
}

#[test]
fn a_counter_operation_waits_for_the_verdict_on_the_one_before_it() {
    let mut session = session();
    let first = blind(&mut session, &place(1), &add(5)).unwrap();
    assert_eq!(blind(&mut session, &place(1), &add(2)), Err(BindError::EarlierOpen));
    assert!(blind(&mut session, &place(2), &add(2)).is_ok(), "another key is free");
    assert!(blind(&mut session, &place(1), &Operation::SetAdd { element: Element::Int(1) }).is_ok());
    assert_eq!(session.verdict(first.dot, Verdict::Applied), Verdict::Applied);
    let second = blind(&mut session, &place(1), &add(-2)).unwrap();
    assert_eq!(count(&merge(&delta(&first), &delta(&second))), 3);
    assert_eq!(count(&delta(&second)), 3, "a running total holds what came before");
}

#[test]
fn a_verdict_on_another_sessions_operation_closes_none_of_its_own() {
    let mut session = session();
    let own = blind(&mut session, &place(1), &add(5)).unwrap();
    let foreign = Dot { actor: Actor::session(10, 8), n: own.dot.n };
    assert_eq!(session.verdict(foreign, Verdict::Refused), Verdict::Unknown);
    assert_eq!(blind(&mut session, &place(1), &add(2)), Err(BindError::EarlierOpen), "its own still has no verdict");
    assert_eq!(session.verdict(own.dot, Verdict::Applied), Verdict::Applied);
    assert!(blind(&mut session, &place(1), &add(2)).is_ok());
}

#[test]
fn a_refused_addition_leaves_the_total_and_the_next_prev_skips_it() {
    let mut session = session();
    let first = blind(&mut session, &place(1), &add(5)).unwrap();
    session.verdict(first.dot, Verdict::Applied);
    let refused = blind(&mut session, &place(1), &add(100)).unwrap();
    assert_eq!(session.verdict(refused.dot, Verdict::Refused), Verdict::Refused);
    let third = blind(&mut session, &place(1), &add(1)).unwrap();
    let state = merge(&delta(&first), &delta(&third));
    assert_eq!(count(&state), 6);
    assert_eq!(state.context().gaps().count(), 0);
    assert!(third.dot.n > refused.dot.n, "a dot is never used again");
}

#[test]
fn what_was_unknown_stays_in_the_total_and_is_never_refused_afterwards() {
    let mut session = session();
    let unknown = blind(&mut session, &place(1), &add(5)).unwrap();
    assert_eq!(session.verdict(unknown.dot, Verdict::Unknown), Verdict::Unknown);
    let next = blind(&mut session, &place(1), &add(1)).unwrap();
    assert_eq!(session.verdict(unknown.dot, Verdict::Refused), Verdict::Unknown);
    assert_eq!(count(&delta(&next)), 6);
    assert_eq!(delta(&next).context().gaps().count(), 1, "it does not claim to have the unknown one");
}

#[test]
fn refusals_in_any_order_bring_the_chain_back_to_the_last_operation_that_stands() {
    let mut session = session();
    let bound: Vec<_> = (0..3).map(|_| blind(&mut session, &place(1), &put("1")).unwrap()).collect();
    session.verdict(bound[0].dot, Verdict::Applied);
    session.verdict(bound[1].dot, Verdict::Refused);
    session.verdict(bound[2].dot, Verdict::Refused);
    let next = blind(&mut session, &place(1), &put("2")).unwrap();
    assert_eq!(merge(&delta(&bound[0]), &delta(&next)).context().gaps().count(), 0);
}

#[test]
fn an_hlc_is_above_everything_read_and_answered() {
    let mut session = session();
    let far = Hlc::default().next(WallTime(6 * DAY_MS));
    let mut other = Session::new(SessionGrant { actor: Actor::session(10, 8), mac: [0; 16] });
    other.answered(far);
    let read = blind(&mut other, &place(1), &put("1")).unwrap();
    let observed = Observed { object: delta(&read), contexts: vec![] };
    let replace = Operation::Replace { value: Value::json("2") };
    let bound = bind_on(&mut session, &place(1), &replace, &observed).unwrap();
    assert!(delta(&bound).hlc_max() > delta(&read).hlc_max() && delta(&read).hlc_max() > far);
}

#[test]
fn a_keyspaces_expiry_is_fixed_when_bound_and_a_values_own_wins() {
    let spec = KeyspaceSpec { ttl_s: Some(60), ..SPEC };
    let mut session = session();
    let own = Value { expires_at: Some(WallTime(7)), ..Value::json("2") };
    for (value, expected) in [(Value::json("1"), WallTime(5 * DAY_MS + 60_000)), (own, WallTime(7))] {
        let operation = Box::new(Operation::AddSibling { value: value.clone() });
        let nested = Operation::MapUpdate { field: "f".into(), operation };
        let (place, observed) = (place(1), Observed::default());
        let intent =
            Intent { place: &place, spec: &spec, operation: &nested, observed: &observed, w: None, quorum: None };
        let bound = session.bind(now(), &intent).unwrap();
        let View::Map(fields) = delta(&bound).view(Conflict::Siblings, WallTime(0)) else { panic!("no map") };
        let expired = Value { expires_at: Some(expected), ..value };
        assert_eq!(fields["f"], [View::Register { values: vec![expired] }]);
    }
}

#[test]
fn a_session_ends_with_its_last_day() {
    let mut session = session();
    let late = Now { wall: WallTime(11 * DAY_MS), ..now() };
    assert!(!session.is_over(WallTime(11 * DAY_MS - 1)));
    let (place, observed, operation) = (place(1), Observed::default(), add(1));
    let intent =
        Intent { place: &place, spec: &SPEC, operation: &operation, observed: &observed, w: None, quorum: None };
    assert_eq!(session.bind(late, &intent), Err(BindError::SessionOver));
}

#[test]
fn a_total_that_would_overflow_is_not_bound_and_mints_nothing() {
    let mut session = session();
    for _ in 0..2 {
        let bound = blind(&mut session, &place(1), &add(i64::MAX)).unwrap();
        session.verdict(bound.dot, Verdict::Applied);
    }
    assert!(matches!(blind(&mut session, &place(1), &add(i64::MAX)), Err(BindError::Invalid { .. })));
    assert_eq!(blind(&mut session, &place(1), &add(1)).unwrap().dot.n, 3);
}

#[test]
fn a_stored_session_goes_on_where_it_was() {
    let mut session = session();
    let first = blind(&mut session, &place(1), &add(5)).unwrap();
    let bytes = session.suspend().encode();
    let mut session = StoredSession::decode(&bytes).unwrap().resume();
    let second = blind(&mut session, &place(1), &add(1)).unwrap();
    assert_eq!((second.dot.n, count(&delta(&second))), (2, 6));
    assert_eq!(merge(&delta(&first), &delta(&second)).context().gaps().count(), 0);
    for cut in 0..bytes.len() {
        assert!(StoredSession::decode(&bytes[..cut]).is_err());
    }
    assert!(StoredSession::decode(&[&[2], &bytes[1..]].concat()).is_err());
}

/// One step of a history, on one of two keys.
#[derive(Clone, Debug)]
enum Move {
    Add(u8, i64),
    Put(u8),
    Reset(u8),
    /// A fate for the n-th open operation: what the client heard, and whether an attempt without a clear answer got in.
    Fate(prop::sample::Index, bool, Verdict),
    /// The client repeats the n-th unknown operation, and it gets in.
    Repeat(prop::sample::Index),
    /// The process ends and goes on.
    Restart,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let verdict = prop_oneof![Just(Verdict::Applied), Just(Verdict::Refused), Just(Verdict::Unknown)];
    let one = prop_oneof![
        4 => (0u8..2, -9i64..10).prop_map(|(key, by)| Move::Add(key, by)),
        2 => (0u8..2).prop_map(Move::Put),
        1 => (0u8..2).prop_map(Move::Reset),
        6 => (any::<prop::sample::Index>(), any::<bool>(), verdict).prop_map(|(n, got_in, v)| Move::Fate(n, got_in, v)),
        1 => any::<prop::sample::Index>().prop_map(Move::Repeat),
        1 => Just(Move::Restart),
    ];
    proptest::collection::vec(one, 1..60)
}

/// What the model knows of one bound operation.
struct Known {
    bound: BoundOperation,
    key: u8,
    operation: Operation,
    /// What a reset saw.
    saw: BTreeSet<usize>,
    verdict: Option<Verdict>,
}

impl Known {
    fn by(&self) -> Option<i64> {
        self.operation.counter_by()
    }
}

#[derive(Default)]
struct World {
    operations: Vec<Known>,
    replica: BTreeMap<u8, Object>,
    /// Which operations each replica holds: directly, or inside a later total.
    held: BTreeMap<u8, BTreeSet<usize>>,
}

impl World {
    fn bind(&mut self, session: &mut Session, key: u8, operation: Operation) {
        let reset = operation == Operation::CounterReset;
        let (object, saw) = if reset {
            (self.replica.get(&key).cloned().unwrap_or_default(), self.held.get(&key).cloned().unwrap_or_default())
        } else {
            (Object::default(), BTreeSet::new())
        };
        let open = |o: &Known| o.key == key && o.operation.binds_counters() && o.verdict.is_none();
        let must_wait = operation.binds_counters() && self.operations.iter().any(open);
        let bound = bind_on(session, &place(key), &operation, &Observed { object, contexts: vec![] });
        match bound {
            Err(error) => assert!(must_wait && error == BindError::EarlierOpen, "{error}"),
            Ok(bound) => {
                assert!(!must_wait, "bound beside an open one");
                assert!(self.operations.iter().all(|o| o.bound.dot != bound.dot), "a dot twice");
                self.operations.push(Known { bound, key, operation, saw, verdict: None });
            }
        }
    }

    /// An attempt gets in. A total brings every earlier addition that was not refused.
    fn apply(&mut self, index: usize) {
        let known = &self.operations[index];
        self.replica.entry(known.key).or_default().merge_into(&delta(&known.bound));
        let held = self.held.entry(known.key).or_default();
        held.insert(index);
        if known.by().is_some() {
            held.extend((0..index).filter(|n| {
                let earlier = &self.operations[*n];
                earlier.key == known.key && earlier.by().is_some() && earlier.verdict != Some(Verdict::Refused)
            }));
        }
    }

    fn decide(&mut self, session: &mut Session, index: usize, got_in: bool, verdict: Verdict) {
        if verdict == Verdict::Applied || (got_in && verdict == Verdict::Unknown) {
            self.apply(index);
        }
        assert_eq!(session.verdict(self.operations[index].bound.dot, verdict), verdict);
        self.operations[index].verdict = Some(verdict);
    }

    fn nth(&self, n: prop::sample::Index, verdict: Option<Verdict>) -> Option<usize> {
        let found: Vec<usize> = (0..self.operations.len()).filter(|i| self.operations[*i].verdict == verdict).collect();
        (!found.is_empty()).then(|| found[n.index(found.len())])
    }

    fn check(&self) {
        for (key, held) in &self.held {
            let gone: BTreeSet<usize> = held.iter().flat_map(|i| &self.operations[*i].saw).copied().collect();
            let expected: i64 = held.difference(&gone).filter_map(|i| self.operations[*i].by()).sum();
            assert_eq!(count(&self.replica[key]), expected, "key {key}");
        }
    }

    /// Whether the replica has seen the operation.
    fn has(&self, known: &Known) -> bool {
        self.replica.get(&known.key).is_some_and(|object| object.context().covers(known.bound.dot))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Every reported success counts exactly once, every refusal not at all, and an unknown one at most once.
    #[test]
    fn counters_are_exact_whatever_happens_to_the_attempts(history in moves()) {
        let (mut session, mut world) = (session(), World::default());
        for step in history {
            match step {
                Move::Add(key, by) => world.bind(&mut session, key, add(by)),
                Move::Put(key) => world.bind(&mut session, key, put("1")),
                Move::Reset(key) => world.bind(&mut session, key, Operation::CounterReset),
                Move::Fate(n, got_in, verdict) => {
                    if let Some(index) = world.nth(n, None) {
                        world.decide(&mut session, index, got_in, verdict);
                    }
                }
                Move::Repeat(n) => {
                    if let Some(index) = world.nth(n, Some(Verdict::Unknown)) {
                        world.apply(index);
                    }
                }
                Move::Restart => {
                    for known in world.operations.iter_mut().filter(|o| o.verdict.is_none()) {
                        known.verdict = Some(Verdict::Unknown);
                    }
                    session = StoredSession::decode(&session.suspend().encode()).unwrap().resume();
                }
            }
            world.check();
        }
        for index in 0..world.operations.len() {
            if world.operations[index].verdict != Some(Verdict::Refused) {
                world.apply(index);
            }
        }
        world.check();
        for known in &world.operations {
            prop_assert!(world.has(known) || known.verdict == Some(Verdict::Refused), "{:?}", known.bound.dot);
        }
    }
}
