//! Which operations a history is made of.

use shoal_protocol::object::{Element, Operation, Path, Value};

use crate::oracle::dice::Dice;

/// The kind of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A register with siblings.
    Siblings,
    /// A `lww` register under skewed clocks, with deletes and pruning.
    Lww,
    /// A `lww` register under right clocks, puts only.
    LwwRightClocks,
    /// A set.
    Set,
    /// A flag.
    Flag,
    /// A counter.
    Counter,
    /// A map of everything, two fields, two deep.
    Map,
    /// Every type at the top level.
    Mixed,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Siblings, Self::Lww, Self::LwwRightClocks, Self::Set, Self::Flag, Self::Counter, Self::Map, Self::Mixed];

    /// An operation; one that observes nothing if `blind`. `number` makes every written value another one.
    pub(super) fn draw(self, dice: &mut Dice, number: usize, blind: bool) -> Operation {
        match self {
            Self::Siblings => register(dice, number, blind),
            Self::Lww if !blind && dice.chance(12) => Operation::Delete,
            Self::Lww | Self::LwwRightClocks => Operation::Put { value: value(number) },
            Self::Set => set(dice, blind),
            Self::Flag => flag(dice, blind),
            Self::Counter => counter(dice, blind),
            Self::Map => map(dice, number, blind),
            Self::Mixed => match dice.below(10) {
                0 | 1 => register(dice, number, blind),
                2 | 3 => set(dice, blind),
                4 => flag(dice, blind),
                5 | 6 => counter(dice, blind),
                _ => map(dice, number, blind),
            },
        }
    }
}

fn register(dice: &mut Dice, number: usize, blind: bool) -> Operation {
    let value = value(number);
    match dice.below(6) {
        0..=2 if !blind => Operation::Replace { value },
        3 if !blind => Operation::Delete,
        _ => Operation::AddSibling { value },
    }
}

fn set(dice: &mut Dice, blind: bool) -> Operation {
    let element = Element::Int(dice.below(2) as i64);
    match dice.below(6) {
        3 | 4 if !blind => Operation::SetRemove { element },
        5 if !blind => Operation::SetClear,
        _ => Operation::SetAdd { element },
    }
}

fn flag(dice: &mut Dice, blind: bool) -> Operation {
    if !blind && dice.chance(40) { Operation::Disable } else { Operation::Enable }
}

fn counter(dice: &mut Dice, blind: bool) -> Operation {
    if !blind && dice.chance(20) {
        return Operation::CounterReset;
    }
    let by = 1 + dice.below(5) as i64;
    Operation::CounterAdd { by: if dice.chance(30) { -by } else { by } }
}

fn map(dice: &mut Dice, number: usize, blind: bool) -> Operation {
    let mut path: Path = vec![dice.pick(&["f", "g"]).to_string()];
    if dice.chance(30) {
        path.push("x".into());
    }
    let inner = match dice.below(9) {
        0 | 1 => register(dice, number, blind),
        2 | 3 => set(dice, blind),
        4 => flag(dice, blind),
        5 | 6 => counter(dice, blind),
        _ if blind => counter(dice, blind),
        _ => Operation::MapRemove { field: path.pop().expect("one was pushed") },
    };
    path.into_iter()
        .rev()
        .fold(inner, |operation, field| Operation::MapUpdate { field, operation: Box::new(operation) })
}

fn value(number: usize) -> Value {
    Value::json(number.to_string())
}
