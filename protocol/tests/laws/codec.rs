//! One object, one encoding; anything else is an error.

use proptest::prelude::*;
use shoal_protocol::causality::Context;
use shoal_protocol::object::Object;

use super::history::{config, history_and_parts};

/// A change to valid bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set { at: prop::sample::Index, to: u8 },
    Insert { at: prop::sample::Index, byte: u8 },
    Remove { at: prop::sample::Index },
    Cut { at: prop::sample::Index },
    Double { at: prop::sample::Index, count: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, to)| Damage::Set { at, to }),
        4 => (at(), 0..8_u8).prop_map(|(at, to)| Damage::Set { at, to }),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert { at, byte }),
        1 => at().prop_map(|at| Damage::Remove { at }),
        1 => at().prop_map(|at| Damage::Cut { at }),
        1 => (at(), 1..12_usize).prop_map(|(at, count)| Damage::Double { at, count }),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Set { at, to } => *at.get_mut(&mut bytes) = *to,
            Damage::Insert { at, byte } => bytes.insert(at.index(bytes.len()), *byte),
            Damage::Remove { at } => {
                bytes.remove(at.index(bytes.len()));
            }
            Damage::Cut { at } => bytes.truncate(at.index(bytes.len())),
            Damage::Double { at, count } => {
                let start = at.index(bytes.len());
                let part = bytes[start..].iter().take(*count).copied().collect::<Vec<_>>();
                bytes.splice(start..start, part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encoding_survives_decoding((_, parts) in history_and_parts(1)) {
        let bytes = parts[0].encode();
        let (copied, shared) = (Object::decode(&bytes), Object::decode_shared(&bytes));
        prop_assert_eq!(copied.as_ref(), Ok(&parts[0]));
        prop_assert_eq!(shared.as_ref(), Ok(&parts[0]));
        prop_assert_eq!(copied.unwrap().encode(), bytes);
        let named = rmp_serde::to_vec(&parts[0]).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Object>(&named).unwrap(), &parts[0]);
        let context = parts[0].context();
        prop_assert_eq!(&Context::decode(&context.encode()).unwrap(), context);
    }

    #[test]
    fn what_decodes_is_what_would_have_been_encoded(
        (_, parts) in history_and_parts(1),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let bytes = damaged(&parts[0].encode(), &damages);
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert_eq!(object.encode(), bytes);
        }
        let bytes = damaged(&parts[0].context().encode(), &damages);
        if let Ok(context) = Context::decode(&bytes) {
            prop_assert_eq!(context.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0..3_u8) {
        if start > 0 && bytes.len() > 2 {
            bytes[0] = 1;
            bytes[1] = 0x93;
        }
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert_eq!(object.encode(), bytes);
        }
    }

    #[test]
    fn damaged_objects_still_merge(
        (_, parts) in history_and_parts(2),
        damages in prop::collection::vec(damage(), 1..3),
    ) {
        if let Ok(strange) = Object::decode(&damaged(&parts[0].encode(), &damages)) {
            let mut here = parts[1].clone();
            here.merge_into(&strange);
            let mut there = strange.clone();
            there.merge_into(&parts[1]);
            prop_assert_eq!(&here, &there);
            prop_assert_eq!(Object::decode(&here.encode()).unwrap().weight(), here.weight());
        }
    }
}
