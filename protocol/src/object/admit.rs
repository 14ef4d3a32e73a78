//! Admission: the limits, checked where a client's operation enters and nowhere else.
//!
//! Shape: cheap checks on the delta first; the joined state is built only when an object is near a limit. What has expired
//! by the time given is hidden from readers, and so is neither another type in the way nor a sibling.
//! Invariant: an operation that removes more than it adds is admitted over any limit but that of types; so is a repeat of
//! one that is already applied. `merge` never refuses: two sides of a partition may overshoot, and still become equal.

use serde::{Deserialize, Serialize};

use crate::causality::{Context, Dot};
use crate::object::body::Body;
use crate::object::counter::Cell;
use crate::object::join::DotStore;
use crate::object::{Object, TypeTag, merge};
use crate::time::WallTime;

/// How large things may become by admitted operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one value, set element or map field name.
    pub value_bytes_max: usize,
    /// Siblings of one register.
    pub siblings_max: usize,
    /// Maps inside one another.
    pub map_depth_max: usize,
    /// Weight of one object, bytes.
    pub object_bytes_max: usize,
    /// Sessions in one object's context.
    pub session_actors_max: usize,
    /// Gapped ranges of one actor in one object's context.
    pub gaps_max: usize,
}

impl Default for Limits {
    /// The values of DESIGN §4.
    fn default() -> Self {
        Self {
            value_bytes_max: 1 << 20,
            siblings_max: 64,
            map_depth_max: 8,
            object_bytes_max: 4 << 20,
            session_actors_max: 4_096,
            gaps_max: 64,
        }
    }
}

/// Why an operation was not admitted. Nothing changed; what is over a limit stays readable and accepts what shrinks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another type is live at the operation's place: delete it first.
    #[error("wrong type: this is a {live}, not a {wanted}")]
    WrongType {
        /// The type that is there.
        live: TypeTag,
        /// The type of the operation.
        wanted: TypeTag,
    },
    /// A value, set element or field name is too large.
    #[error("value of {bytes} bytes; the limit is {bytes_max}")]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A register would have too many siblings: read and replace them.
    #[error("{count} siblings; the limit is {count_max}")]
    TooManySiblings {
        /// How many there would be.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// Maps would be nested too deeply.
    #[error("maps nested {depth} deep; the limit is {depth_max}")]
    TooDeep {
        /// How deep.
        depth: usize,
        /// The limit.
        depth_max: usize,
    },
    /// The object would be too large.
    #[error("object of {bytes} bytes; the limit is {bytes_max}")]
    ObjectTooLarge {
        /// Its weight.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Too many sessions have written the object.
    #[error("{count} sessions have written this object; the limit is {count_max}")]
    TooManySessions {
        /// How many.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// Too many of the actor's earlier operations on the object are missing here: repeat them first.
    #[error("{count} gaps in the operations of one actor; the limit is {count_max}")]
    TooManyGaps {
        /// How many.
        count: usize,
        /// The limit.
        count_max: usize,
    },
}

/// Whether a client's `delta` may enter at `wall`, given the `current` object.
///
/// # Errors
/// The first limit that it breaks.
pub fn admit(current: &Object, delta: &Object, limits: &Limits, wall: WallTime) -> Result<(), Refusal> {
    let admission = Admission { seen: &current.context, delta: &delta.context, limits, wall };
    admission.body(&current.body, &delta.body, 0)?;
    let fits = current.weight() + delta.weight() <= limits.object_bytes_max
        && current.context.ranges_count() + delta.context.ranges_count() <= limits.session_actors_max
        && current.context.gaps().count() + delta.context.gaps().count() <= limits.gaps_max;
    if fits { Ok(()) } else { admit_joined(current, &merge(current, delta), limits) }
}

fn admit_joined(current: &Object, joined: &Object, limits: &Limits) -> Result<(), Refusal> {
    if joined.weight < current.weight {
        return Ok(());
    }
    let (before, bytes) = (current.weight(), joined.weight());
    if bytes > limits.object_bytes_max && bytes > before {
        return Err(Refusal::ObjectTooLarge { bytes, bytes_max: limits.object_bytes_max });
    }
    let sessions = |object: &Object| object.context.actors().filter(|actor| actor.is_session()).count();
    let (before, count) = (sessions(current), sessions(joined));
    if count > limits.session_actors_max && count > before {
        return Err(Refusal::TooManySessions { count, count_max: limits.session_actors_max });
    }
    for (actor, _, _) in joined.context.gaps() {
        let (before, count) = (current.context.gaps_count(actor), joined.context.gaps_count(actor));
        if count > limits.gaps_max && count > before {
            return Err(Refusal::TooManyGaps { count, count_max: limits.gaps_max });
        }
    }
    Ok(())
}

struct Admission<'a> {
    /// What the current object has seen: of it, the delta adds nothing.
    seen: &'a Context,
    /// What the delta covers: of it, nothing stays but what the delta holds.
    delta: &'a Context,
    limits: &'a Limits,
    /// What has expired by then is not there.
    wall: WallTime,
}

impl Admission<'_> {
    fn body(&self, current: &Body, delta: &Body, depth: usize) -> Result<(), Refusal> {
        for wanted in TypeTag::ALL.into_iter().filter(|tag| self.adds(*tag, current, delta)) {
            for live in TypeTag::ALL.into_iter().filter(|tag| *tag != wanted) {
                if self.outlives(live, current, delta) {
                    return Err(Refusal::WrongType { live, wanted });
                }
            }
        }
        self.values(delta)?;
        self.siblings(current, delta)?;
        let absent = Body::default();
        for (field, inner) in delta.map.iter() {
            self.bytes(field.len())?;
            if depth + 1 > self.limits.map_depth_max && self.adds(TypeTag::Map, current, delta) {
                return Err(Refusal::TooDeep { depth: depth + 1, depth_max: self.limits.map_depth_max });
            }
            self.body(current.map.get(field).unwrap_or(&absent), inner, depth + 1)?;
        }
        Ok(())
    }

    /// Whether the delta brings live content of this type to this place that is not there yet.
    fn adds(&self, tag: TypeTag, current: &Body, delta: &Body) -> bool {
        match tag {
            TypeTag::Register => self.has_unseen(&delta.register),
            TypeTag::Flag => self.has_unseen(&delta.flag),
            TypeTag::Set => self.has_unseen(&delta.set),
            TypeTag::Counter => delta.counter.iter().any(|(actor, cell)| {
                let known = current.counter.cell(actor);
                cell.is_live() && (cell.p > known.p.max(known.pr) || cell.n > known.n.max(known.nr))
            }),
            TypeTag::Map => {
                let absent = Body::default();
                delta.map.iter().any(|(field, inner)| {
                    let current = current.map.get(field).unwrap_or(&absent);
                    TypeTag::ALL.into_iter().any(|tag| self.adds(tag, current, inner))
                })
            }
        }
    }

    /// Whether current content of this type at this place is still live after the delta.
    fn outlives(&self, tag: TypeTag, current: &Body, delta: &Body) -> bool {
        match tag {
            TypeTag::Register => self.kept_values(current).next().is_some(),
            TypeTag::Flag => self.has_uncovered(&current.flag),
            TypeTag::Set => self.has_uncovered(&current.set),
            TypeTag::Counter => current.counter.iter().any(|(actor, cell)| {
                let mut joined: Cell = *cell;
                joined.join(&delta.counter.cell(actor));
                joined.is_live()
            }),
            TypeTag::Map => {
                let absent = Body::default();
                current.map.iter().any(|(field, inner)| {
                    let delta = delta.map.get(field).unwrap_or(&absent);
                    TypeTag::ALL.into_iter().any(|tag| self.outlives(tag, inner, delta))
                })
            }
        }
    }

    /// The register values at this place that have not expired and that the delta does not remove.
    fn kept_values<'b>(&'b self, current: &'b Body) -> impl Iterator<Item = Dot> + 'b {
        let shown = current.register.iter().filter(|(_, entry)| !entry.value.is_expired(self.wall));
        shown.map(|(dot, _)| dot).filter(|dot| !self.delta.covers(*dot))
    }

    fn has_unseen(&self, store: &impl DotStore) -> bool {
        any_dot_outside(store, self.seen)
    }

    fn has_uncovered(&self, store: &impl DotStore) -> bool {
        any_dot_outside(store, self.delta)
    }

    fn values(&self, delta: &Body) -> Result<(), Refusal> {
        delta.register.iter().try_for_each(|(_, entry)| self.bytes(entry.value.bytes.len()))?;
        delta.set.iter().try_for_each(|(element, _)| self.bytes(element.bytes_count()))
    }

    fn bytes(&self, bytes: usize) -> Result<(), Refusal> {
        let bytes_max = self.limits.value_bytes_max;
        if bytes > bytes_max { Err(Refusal::ValueTooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    fn siblings(&self, current: &Body, delta: &Body) -> Result<(), Refusal> {
        let added = delta.register.iter().filter(|(dot, _)| !self.seen.covers(*dot)).count();
        let before = current.register.iter().filter(|(_, entry)| !entry.value.is_expired(self.wall)).count();
        let (count, count_max) = (self.kept_values(current).count() + added, self.limits.siblings_max);
        if count > count_max && count > before {
            return Err(Refusal::TooManySiblings { count, count_max });
        }
        Ok(())
    }
}

fn any_dot_outside(store: &impl DotStore, context: &Context) -> bool {
    store.dots().any(|dot| !context.covers(dot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Actor;
    use crate::object::{Element, Mint, Operation, Totals, Value, bind};
    use crate::time::Hlc;

    fn delta(session: u64, n: u64, operation: &Operation, seen: &Object) -> Object {
        let dot = Dot { actor: Actor::session(20_000, session), n };
        let mint = Mint { dot, prev: n - 1, hlc: Hlc(n), total: Some(Totals { p: n, n: 0 }) };
        bind(operation, &mint, seen).unwrap()
    }

    fn state(operations: &[Operation]) -> Object {
        let mut state = Object::default();
        for (at, operation) in operations.iter().enumerate() {
            let made = delta(1, at as u64 + 1, operation, &state);
            state.merge_into(&made);
        }
        state
    }

    fn check(state: &Object, operation: &Operation) -> Result<(), Refusal> {
        check_at(state, operation, WallTime(0))
    }

    fn check_at(state: &Object, operation: &Operation, wall: WallTime) -> Result<(), Refusal> {
        admit(state, &delta(2, 1, operation, state), &Limits::default(), wall)
    }

    fn sibling(byte: &str) -> Operation {
        Operation::AddSibling { value: Value::json(byte.to_owned()) }
    }

    fn field(operation: Operation) -> Operation {
        Operation::MapUpdate { field: "f".into(), operation: Box::new(operation) }
    }

    fn element(size: usize) -> Operation {
        Operation::SetAdd { element: Element::Text("e".repeat(size)) }
    }

    #[test]
    fn another_live_type_is_refused_at_every_place() {
        let (add, add_in_field) = (Operation::CounterAdd { by: 1 }, field(Operation::CounterAdd { by: 1 }));
        let set = state(&[element(1)]);
        let wrong = Err(Refusal::WrongType { live: TypeTag::Set, wanted: TypeTag::Counter });
        assert_eq!(check(&set, &add), wrong);
        assert_eq!(check(&state(&[field(element(1))]), &add_in_field), wrong);
        assert!(check(&set, &add_in_field).is_err());
        assert!(check(&set, &Operation::Enable).is_err());
        assert!(check(&set, &sibling("1")).is_err());
        let reset = state(&[add.clone(), Operation::CounterReset]);
        assert!(reset.is_vacant());
        for removal in [Operation::SetClear, Operation::Delete, Operation::CounterReset] {
            assert_eq!(check(&set, &removal), Ok(()));
        }
        assert_eq!(check(&reset, &element(1)), Ok(()));
        assert_eq!(check(&state(&[element(1), Operation::Delete]), &add), Ok(()));
    }

    #[test]
    fn a_repeat_is_admitted_though_its_place_has_another_type_by_now() {
        let first = delta(1, 1, &sibling("1"), &Object::default());
        let mut state = first.clone();
        state.merge_into(&delta(1, 2, &Operation::Delete, &state));
        state.merge_into(&delta(1, 3, &element(1), &state));
        assert_eq!(admit(&state, &first, &Limits::default(), WallTime(0)), Ok(()));
    }

    #[test]
    fn what_has_expired_is_not_in_the_way() {
        let until = |end| Operation::AddSibling {
            value: Value { expires_at: Some(WallTime(end)), ..Value::json("1".to_owned()) },
        };
        let add = Operation::CounterAdd { by: 1 };
        for (there, operation) in [(until(100), add.clone()), (field(until(100)), field(add.clone()))] {
            let register = state(std::slice::from_ref(&there));
            assert!(matches!(check_at(&register, &operation, WallTime(99)), Err(Refusal::WrongType { .. })));
            assert_eq!(check_at(&register, &operation, WallTime(100)), Ok(()));
        }
        let field_of_a_map = field(add.clone());
        assert_eq!(check_at(&state(&[until(100)]), &field_of_a_map, WallTime(100)), Ok(()));
        let one_lives = state(&[until(100), until(101)]);
        assert!(matches!(check_at(&one_lives, &add, WallTime(100)), Err(Refusal::WrongType { .. })));
        let full = state(&(0..64).map(|_| until(100)).collect::<Vec<_>>());
        assert!(matches!(check_at(&full, &until(200), WallTime(99)), Err(Refusal::TooManySiblings { .. })));
        assert_eq!(check_at(&full, &until(200), WallTime(100)), Ok(()));
    }

    #[test]
    fn a_conflict_is_resolved_by_replacing_it_or_removing_one_type() {
        let mut both = delta(1, 1, &sibling("1"), &Object::default());
        both.merge_into(&delta(3, 1, &Operation::CounterAdd { by: 1 }, &Object::default()));
        assert_eq!(both.live_types().collect::<Vec<_>>(), [TypeTag::Register, TypeTag::Counter]);
        assert!(check(&both, &sibling("2")).is_err());
        for resolution in [Operation::Replace { value: Value::json("2") }, Operation::CounterReset, Operation::Delete] {
            assert_eq!(check(&both, &resolution), Ok(()));
        }
    }

    #[test]
    fn values_and_siblings_and_depth_have_limits() {
        let limits = Limits::default();
        let large = "v".repeat(limits.value_bytes_max + 1);
        assert!(matches!(check(&Object::default(), &sibling(&large)), Err(Refusal::ValueTooLarge { .. })));
        assert!(matches!(check(&Object::default(), &element(large.len())), Err(Refusal::ValueTooLarge { .. })));
        let full = state(&(0..64).map(|n| sibling(&n.to_string())).collect::<Vec<_>>());
        assert_eq!(check(&full, &sibling("x")), Err(Refusal::TooManySiblings { count: 65, count_max: 64 }));
        assert_eq!(check(&full, &Operation::Replace { value: Value::json("x") }), Ok(()));
        let nested = |depth| (0..depth).fold(Operation::Enable, |inner, _| field(inner));
        assert_eq!(check(&Object::default(), &nested(8)), Ok(()));
        assert_eq!(check(&Object::default(), &nested(9)), Err(Refusal::TooDeep { depth: 9, depth_max: 8 }));
    }

    #[test]
    fn an_object_over_its_limits_takes_what_shrinks_it() {
        let full = state(&(0..5).map(|n| element((1 << 20) - n)).collect::<Vec<_>>());
        assert!(matches!(check(&full, &element(1)), Err(Refusal::ObjectTooLarge { .. })));
        let remove = Operation::SetRemove { element: Element::Text("e".repeat(1 << 20)) };
        assert_eq!(check(&full, &remove), Ok(()));
        assert_eq!(check(&full, &Operation::SetClear), Ok(()));
    }

    #[test]
    fn sessions_and_gaps_have_limits() {
        let mut many = Object::default();
        for session in 10..10 + 4_096 {
            many.merge_into(&delta(session, 1, &Operation::Enable, &many));
        }
        let refused = Err(Refusal::TooManySessions { count: 4_097, count_max: 4_096 });
        assert_eq!(check(&many, &Operation::Enable), refused);
        assert_eq!(check(&many, &Operation::Disable), Ok(()));
        many.merge_into(&delta(10, 2, &Operation::Disable, &many));
        assert_eq!(check(&many, &Operation::Disable), refused, "there is nothing left to remove");

        let gapped = |n: u64| delta(2, 2 * n, &Operation::Enable, &Object::default());
        let mut object = Object::default();
        for n in 1..=64 {
            assert_eq!(admit(&object, &gapped(n), &Limits::default(), WallTime(0)), Ok(()));
            object.merge_into(&gapped(n));
        }
        let refused = Err(Refusal::TooManyGaps { count: 65, count_max: 64 });
        assert_eq!(admit(&object, &gapped(65), &Limits::default(), WallTime(0)), refused);
        assert_eq!(admit(&object, &gapped(64), &Limits::default(), WallTime(0)), Ok(()));
    }
}
