//! Binding: fixing what an operation does, before it is first sent.
//!
//! Shape: an operation, the minter's next dot and what the minter has observed become a delta; every retry sends the same
//! bytes. The delta covers `(prev, dot]` of its own actor, so that a lost predecessor shows as a gap, and what it replaces.
//! Source: DESIGN §4 "Binding"; spikes/binding.rs.
//! Invariants: `Replace` and `Delete` at the top level cover the whole observed context (what a client holds may be nothing
//! but an encoded context); every other operation covers only the observed dots of the store it works on. A bound delta is
//! always merged, never skipped because its dot is covered.

use crate::causality::{Context, Dot};
use crate::id::Actor;
use crate::object::body::Body;
use crate::object::counter::{Cell, Counter, Totals};
use crate::object::dot_map::{DotMap, DotSet};
use crate::object::join::DotStore;
use crate::object::keyed::Keyed;
use crate::object::register::Entry;
use crate::object::value::Value;
use crate::object::{DEPTH_MAX, Object, Operation};
use crate::time::Hlc;

/// What the minter gives to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The operation's own dot, never used before.
    pub dot: Dot,
    /// The number of the same actor's previous dot on this key: 0 if there is none, `dot.n - 1` if it was forgotten.
    pub prev: u64,
    /// Above every hlc the minter has read.
    pub hlc: Hlc,
    /// For a counter operation: the actor's running totals of this counter, with this operation.
    pub total: Option<Totals>,
}

/// Why an operation cannot be bound. Nothing was minted or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// `prev` must be below the dot.
    #[error("the previous dot {prev} is not below {dot}")]
    PrevNotBelowDot {
        /// The previous dot's number.
        prev: u64,
        /// The dot's number.
        dot: u64,
    },
    /// A counter operation needs the running totals.
    #[error("a counter operation without its running totals")]
    TotalMissing,
    /// The operation nests maps deeper than can be encoded.
    #[error("maps are nested deeper than {DEPTH_MAX}")]
    TooDeep,
}

/// The delta of `operation`, given what was `observed`.
///
/// # Errors
/// See `BindError`.
pub fn bind(operation: &Operation, mint: &Mint, observed: &Object) -> Result<Object, BindError> {
    if mint.prev >= mint.dot.n {
        return Err(BindError::PrevNotBelowDot { prev: mint.prev, dot: mint.dot.n });
    }
    let mut context = Context::default();
    context.insert_range(mint.dot.actor, mint.prev, mint.dot.n);
    let mut binding = Binding { mint, observed, context };
    let body = binding.top_level(operation)?;
    Ok(Object::new(binding.context, body))
}

/// The running totals of `actor` on the counter at `path`, as far as `observed` knows: all a replica needs, which applies
/// its own operations in order.
#[must_use]
pub fn own_total(observed: &Object, actor: Actor, path: &[String]) -> Totals {
    observed.body.at(path).map(|body| body.counter.cell(actor).totals()).unwrap_or_default()
}

struct Binding<'a> {
    mint: &'a Mint,
    observed: &'a Object,
    context: Context,
}

impl Binding<'_> {
    fn top_level(&mut self, operation: &Operation) -> Result<Body, BindError> {
        match operation {
            Operation::Replace { value } => {
                self.context.join(&self.observed.context);
                Ok(Body { register: self.write(value), ..self.observed.body.floors() })
            }
            Operation::Delete => {
                self.context.join(&self.observed.context);
                Ok(self.observed.body.floors())
            }
            Operation::Put { .. }
            | Operation::AddSibling { .. }
            | Operation::Enable
            | Operation::Disable
            | Operation::SetAdd { .. }
            | Operation::SetRemove { .. }
            | Operation::SetClear
            | Operation::CounterAdd { .. }
            | Operation::CounterReset
            | Operation::MapUpdate { .. }
            | Operation::MapRemove { .. } => self.at(operation, &self.observed.body, 0),
        }
    }

    /// `seen` is what was observed at this place, `depth` the number of maps around it.
    fn at(&mut self, operation: &Operation, seen: &Body, depth: usize) -> Result<Body, BindError> {
        let mint = self.mint;
        match operation {
            Operation::Put { value } => {
                let lower = |(dot, entry): &(Dot, &Entry)| (entry.hlc, *dot) < (mint.hlc, mint.dot);
                seen.register.iter().filter(lower).for_each(|(dot, _)| self.context.insert(dot));
                Ok(Body { register: self.write(value), ..Body::default() })
            }
            Operation::Replace { value } => {
                self.cover_store(&seen.register);
                Ok(Body { register: self.write(value), ..Body::default() })
            }
            Operation::AddSibling { value } => Ok(Body { register: self.write(value), ..Body::default() }),
            Operation::Delete => Ok(self.remove_all(seen)),
            Operation::Enable => {
                self.cover_store(&seen.flag);
                Ok(Body { flag: DotSet::one(mint.dot, ()), ..Body::default() })
            }
            Operation::Disable => {
                self.cover_store(&seen.flag);
                Ok(Body::default())
            }
            Operation::SetAdd { element } => {
                seen.set.get(element).iter().for_each(|dots| self.cover_store(*dots));
                let dots = DotSet::one(mint.dot, ());
                Ok(Body { set: Keyed::one(element.clone(), dots), ..Body::default() })
            }
            Operation::SetRemove { element } => {
                seen.set.get(element).iter().for_each(|dots| self.cover_store(*dots));
                Ok(Body::default())
            }
            Operation::SetClear => {
                self.cover_store(&seen.set);
                Ok(Body::default())
            }
            Operation::CounterAdd { .. } => {
                let Totals { p, n } = mint.total.ok_or(BindError::TotalMissing)?;
                let cell = (mint.dot.actor, Cell { p, n, ..Cell::default() });
                Ok(Body { counter: Counter::from_cells([cell].into_iter()), ..Body::default() })
            }
            Operation::CounterReset => Ok(Body { counter: seen.counter.floors(), ..Body::default() }),
            Operation::MapUpdate { .. } if depth == DEPTH_MAX => Err(BindError::TooDeep),
            Operation::MapUpdate { field, operation } => {
                let absent = Body::default();
                let inner = self.at(operation, seen.map.get(field).unwrap_or(&absent), depth + 1)?;
                Ok(Body::of_field(field.clone(), inner))
            }
            Operation::MapRemove { field } => {
                let floors = seen.map.get(field).map(|body| self.remove_all(body)).unwrap_or_default();
                Ok(Body::of_field(field.clone(), floors))
            }
        }
    }

    fn write(&self, value: &Value) -> DotMap<Entry> {
        DotMap::one(self.mint.dot, Entry { hlc: self.mint.hlc, value: value.clone() })
    }

    fn remove_all(&mut self, seen: &Body) -> Body {
        self.cover_store(seen);
        seen.floors()
    }

    fn cover_store(&mut self, seen: &impl DotStore) {
        seen.dots().for_each(|dot| self.context.insert(dot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Conflict, Element, View, merge};
    use crate::time::WallTime;

    const A: Actor = Actor(1);
    const B: Actor = Actor(2);

    fn mint(actor: Actor, n: u64, total: Totals) -> Mint {
        Mint { dot: Dot { actor, n }, prev: n - 1, hlc: Hlc(n), total: Some(total) }
    }

    /// Two replicas at work: each binds against what it has, `sync` joins them.
    #[derive(Default)]
    struct Pair {
        states: [Object; 2],
        minted: u64,
    }

    impl Pair {
        fn apply(&mut self, at: usize, operation: &Operation) {
            self.minted += 1;
            let (actor, state) = ([A, B][at], &mut self.states[at]);
            let path = operation.counter_path().unwrap_or_default();
            let total = own_total(state, actor, &path).plus(operation.counter_by().unwrap_or(0)).unwrap();
            let delta = bind(operation, &mint(actor, self.minted, total), state).unwrap();
            state.merge_into(&delta);
        }

        fn sync(&mut self) -> View {
            let joined = merge(&self.states[0], &self.states[1]);
            self.states = [joined.clone(), joined.clone()];
            joined.view(Conflict::Siblings, WallTime(0))
        }
    }

    fn add(element: i64) -> Operation {
        Operation::SetAdd { element: Element::Int(element) }
    }

    fn field(operation: Operation) -> Operation {
        Operation::MapUpdate { field: "f".into(), operation: Box::new(operation) }
    }

    #[test]
    fn add_wins_over_a_concurrent_remove_and_loses_to_a_later_one() {
        let mut pair = Pair::default();
        pair.apply(0, &add(1));
        pair.sync();
        pair.apply(0, &Operation::SetClear);
        pair.apply(1, &add(1));
        assert_eq!(pair.sync(), View::Set(vec![Element::Int(1)]));
        pair.apply(0, &Operation::SetRemove { element: Element::Int(1) });
        assert_eq!(pair.sync(), View::Absent);
    }

    #[test]
    fn enable_wins() {
        let mut pair = Pair::default();
        pair.apply(0, &Operation::Enable);
        pair.sync();
        pair.apply(0, &Operation::Disable);
        pair.apply(1, &Operation::Enable);
        assert_eq!(pair.sync(), View::Flag(true));
    }

    #[test]
    fn a_reset_removes_the_observed_part_also_inside_a_removed_field() {
        for (add, reset) in [
            (Operation::CounterAdd { by: 5 }, Operation::CounterReset),
            (Operation::CounterAdd { by: 5 }, Operation::Delete),
            (field(Operation::CounterAdd { by: 5 }), Operation::MapRemove { field: "f".into() }),
            (field(Operation::CounterAdd { by: 5 }), field(Operation::Delete)),
        ] {
            let mut pair = Pair::default();
            pair.apply(0, &add);
            pair.sync();
            pair.apply(0, &reset);
            pair.apply(1, &add);
            let left = match pair.sync() {
                View::Map(fields) => fields["f"].clone(),
                view @ (View::Absent
                | View::Register { .. }
                | View::Flag(_)
                | View::Set(_)
                | View::Counter(_)
                | View::Conflict(_)) => vec![view],
            };
            assert_eq!(left, [View::Counter(5)], "{reset:?}");
        }
    }

    #[test]
    fn a_replace_with_nothing_but_a_context_replaces_what_it_saw() {
        let mut pair = Pair::default();
        pair.apply(0, &Operation::AddSibling { value: Value::json("1") });
        let seen = Object::of_context(pair.states[0].context().clone());
        pair.apply(1, &Operation::AddSibling { value: Value::json("2") });
        pair.sync();
        let replace = Operation::Replace { value: Value::json("3") };
        let delta = bind(&replace, &mint(A, 9, Totals::default()), &seen).unwrap();
        pair.states[0].merge_into(&delta);
        let values = vec![Value::json("3"), Value::json("2")];
        assert_eq!(pair.sync(), View::Register { values });
    }

    #[test]
    fn a_blind_put_replaces_lower_values_only() {
        let mut seen = Object::default();
        for (n, hlc) in [(1, 5), (2, 20)] {
            let mint = Mint { hlc: Hlc(hlc), ..mint(A, n, Totals::default()) };
            seen.merge_into(&bind(&Operation::AddSibling { value: Value::json("0") }, &mint, &seen).unwrap());
        }
        let put = Mint { hlc: Hlc(10), ..mint(B, 1, Totals::default()) };
        let delta = bind(&Operation::Put { value: Value::json("1") }, &put, &seen).unwrap();
        assert!(delta.context().covers(Dot { actor: A, n: 1 }));
        assert!(!delta.context().covers(Dot { actor: A, n: 2 }));
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let mut wrong = mint(A, 3, Totals::default());
        wrong.prev = 3;
        let refused = bind(&Operation::Enable, &wrong, &Object::default());
        assert_eq!(refused, Err(BindError::PrevNotBelowDot { prev: 3, dot: 3 }));
        let totals = Mint { total: None, ..mint(A, 1, Totals::default()) };
        let refused = bind(&Operation::CounterAdd { by: 1 }, &totals, &Object::default());
        assert_eq!(refused, Err(BindError::TotalMissing));
        let nested = |depth| (0..depth).fold(Operation::Enable, |inner, _| field(inner));
        let deepest = bind(&nested(DEPTH_MAX), &mint(A, 1, Totals::default()), &Object::default()).unwrap();
        assert_eq!(Object::decode(&deepest.encode()), Ok(deepest));
        let refused = bind(&nested(DEPTH_MAX + 1), &mint(A, 1, Totals::default()), &Object::default());
        assert_eq!(refused, Err(BindError::TooDeep));
    }
}
