//! What clients do: operations drawn for keys of every kind.

use bytes::Bytes;
use shoal_protocol::object::{Conflict, Element, Operation, Value, View};

use super::dice::Dice;
use super::history::History;
use super::scenario::KeyKind;

/// What an operation needs to know before it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Blind,
    /// The object, or the context alone.
    Seen,
}

/// An operation on a key, drawn by its kind. `seen` is what the client last read there.
pub(super) fn draw(dice: &mut Dice, history: &mut History, key: usize, seen: Option<&View>) -> (Operation, Look) {
    let lww = history.space_of(key).spec.conflict == Conflict::Lww;
    match history.keys[key].kind {
        KeyKind::Register => register(dice, history, lww),
        KeyKind::Flag => flag(dice),
        KeyKind::Set => set(dice),
        KeyKind::Counter => counter(dice),
        KeyKind::Map => map(dice, history, lww),
        KeyKind::Mixed => match dice.index(6) {
            0 => register(dice, history, lww),
            1 => flag(dice),
            2 => set(dice),
            3 => counter(dice),
            4 => map(dice, history, lww),
            _ => (Operation::Delete, Look::Seen),
        },
        KeyKind::LooseSet => loose_set(dice, history, seen),
        KeyKind::LooseCounter => (Operation::CounterAdd { by: amount(dice) }, Look::Blind),
    }
}

fn register(dice: &mut Dice, history: &mut History, lww: bool) -> (Operation, Look) {
    let value = value(dice, history);
    match dice.index(10) {
        0 => (Operation::Delete, Look::Seen),
        1..=4 => (Operation::Replace { value }, Look::Seen),
        _ if lww => (Operation::Put { value }, Look::Blind),
        _ => (Operation::AddSibling { value }, Look::Blind),
    }
}

fn flag(dice: &mut Dice) -> (Operation, Look) {
    match dice.index(5) {
        0 => (Operation::Delete, Look::Seen),
        1 | 2 => (Operation::Disable, Look::Seen),
        3 => (Operation::Enable, Look::Seen),
        _ => (Operation::Enable, Look::Blind),
    }
}

fn set(dice: &mut Dice) -> (Operation, Look) {
    let element = dice.pick(&[Element::Int(1), Element::Int(2), Element::Int(3)].each_ref()).clone();
    match dice.index(12) {
        0 => (Operation::Delete, Look::Seen),
        1 => (Operation::SetClear, Look::Seen),
        2..=4 => (Operation::SetRemove { element }, Look::Seen),
        5..=7 => (Operation::SetAdd { element }, Look::Seen),
        _ => (Operation::SetAdd { element }, Look::Blind),
    }
}

fn counter(dice: &mut Dice) -> (Operation, Look) {
    match dice.index(12) {
        0 => (Operation::Delete, Look::Seen),
        1 | 2 => (Operation::CounterReset, Look::Seen),
        _ => (Operation::CounterAdd { by: amount(dice) }, Look::Blind),
    }
}

fn map(dice: &mut Dice, history: &mut History, lww: bool) -> (Operation, Look) {
    let field = dice.pick(&["register", "flag", "set", "counter", "map"]);
    let (operation, look) = match field {
        "register" => register(dice, history, lww),
        "flag" => flag(dice),
        "set" => set(dice),
        "counter" => counter(dice),
        _ => {
            let (inner, look) = if dice.percent(50) { set(dice) } else { counter(dice) };
            let field = if matches!(inner, Operation::CounterAdd { .. } | Operation::CounterReset) { "n" } else { "s" };
            (Operation::MapUpdate { field: field.into(), operation: Box::new(inner) }, look)
        }
    };
    match dice.index(12) {
        0 => (Operation::Delete, Look::Seen),
        1 => (Operation::MapRemove { field: field.into() }, Look::Seen),
        _ => (Operation::MapUpdate { field: field.into(), operation: Box::new(operation) }, look),
    }
}

/// Adds an element that was never there, or removes one that was seen.
fn loose_set(dice: &mut Dice, history: &mut History, seen: Option<&View>) -> (Operation, Look) {
    if let Some(View::Set(elements)) = seen
        && !elements.is_empty()
        && dice.percent(30)
    {
        let element = elements[dice.index(elements.len())].clone();
        return (Operation::SetRemove { element }, Look::Seen);
    }
    let fresh = i64::try_from(history.fresh_value()).expect("histories are short");
    (Operation::SetAdd { element: Element::Int(fresh) }, Look::Blind)
}

fn value(dice: &mut Dice, history: &mut History) -> Value {
    let padding = dice.pick(&[0usize, 0, 0, 40, 400]);
    Value::json(Bytes::from(format!("\"{}{}\"", history.fresh_value(), " ".repeat(padding))))
}

fn amount(dice: &mut Dice) -> i64 {
    let by = i64::try_from(dice.between(1, 9)).expect("it is small");
    if dice.percent(30) { -by } else { by }
}
