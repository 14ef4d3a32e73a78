//! A merge costs by the delta, not by the object.

use shoal_protocol::causality::Dot;
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Element, Mint, Object, Operation, Totals, Value, bind};
use shoal_protocol::time::Hlc;

const CLIENT: Actor = Actor::session(20_000, 7);

fn mint(n: u64) -> Mint {
    Mint { dot: Dot { actor: CLIENT, n }, prev: n - 1, hlc: Hlc(n), total: Some(Totals { p: n, n: 0 }) }
}

fn in_field(field: &str, operation: Operation) -> Operation {
    Operation::MapUpdate { field: field.into(), operation: Box::new(operation) }
}

/// An object with `size` of everything: elements, cells, fields, nested elements; and its last own number.
fn object_with(size: u64) -> (Object, u64) {
    let mut object = Object::default();
    let mut n = 0;
    for i in 0..size {
        let element = Element::Int(i as i64);
        for operation in [
            Operation::SetAdd { element: element.clone() },
            in_field(&format!("f{i}"), Operation::Enable),
            in_field("deep", in_field("set", Operation::SetAdd { element })),
            Operation::AddSibling { value: Value::json("1") },
        ] {
            n += 1;
            let delta = bind(&operation, &mint(n), &Object::default()).expect("it binds");
            object.merge_into(&delta);
        }
        let counter = Mint { dot: Dot { actor: Actor(i + 1), n: 1 }, prev: 0, ..mint(1) };
        object.merge_into(&bind(&Operation::CounterAdd { by: 1 }, &counter, &Object::default()).expect("it binds"));
    }
    (object, n)
}

/// The work of one small delta of each kind.
fn work(size: u64) -> Vec<u64> {
    let (object, n) = object_with(size);
    let operations = [
        Operation::SetAdd { element: Element::Text("new".into()) },
        Operation::SetRemove { element: Element::Int(1) },
        in_field("deep", in_field("set", Operation::SetRemove { element: Element::Int(2) })),
        in_field("f3", Operation::Disable),
        in_field("new", Operation::Enable),
        Operation::MapRemove { field: "f4".into() },
        Operation::CounterAdd { by: 1 },
        Operation::AddSibling { value: Value::json("2") },
    ];
    let costs = operations.iter().map(|operation| {
        let delta = bind(operation, &mint(n + 1), &object).expect("it binds");
        object.clone().merge_into(&delta).visited
    });
    costs.collect()
}

#[test]
fn a_small_delta_costs_the_same_in_a_small_and_in_a_large_object() {
    let small = work(10);
    assert_eq!(work(3_000), small);
    assert!(small.iter().all(|visited| *visited <= 16), "{small:?}");
}

#[test]
fn the_delta_for_an_old_state_is_as_big_as_the_difference() {
    let bytes = |size: u64| {
        let (old, n) = object_with(size);
        let mut new = old.clone();
        for (at, operation) in (1..).zip([
            Operation::SetAdd { element: Element::Text("new".into()) },
            Operation::SetRemove { element: Element::Int(1) },
            in_field("f3", Operation::Disable),
            in_field("new", Operation::Enable),
            Operation::CounterAdd { by: 1 },
        ]) {
            let delta = bind(&operation, &mint(n + at), &new).expect("it binds");
            new.merge_into(&delta);
        }
        let delta = new.delta_for(&old);
        let mut after = old.clone();
        after.merge_into(&delta);
        assert_eq!(after, new);
        delta.encode().len()
    };
    let (small, large) = (bytes(10), bytes(3_000));
    // Numbers take a byte or two more where they are greater; the object is hundreds of kilobytes.
    assert!(large <= small + 40 && large < 200, "{small} {large}");
}

#[test]
fn a_removal_costs_by_what_it_removes() {
    let (object, n) = object_with(1_000);
    let delta = bind(&Operation::SetClear, &mint(n + 1), &object).expect("it binds");
    let visited = object.clone().merge_into(&delta).visited;
    assert!((1_000..20_000).contains(&visited), "{visited}");
    let (small, _) = object_with(10);
    assert!(small.clone().merge_into(&delta).visited < 1_200);
}
