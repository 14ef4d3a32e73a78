//! Whatever comes in: the law of outputs, and no panic.

use proptest::prelude::*;

use super::*;

/// An input of any kind, of members 0 to 7, of which 0 is the list's own.
fn input() -> impl Strategy<Value = Input> {
    let node = || (0..8u64).prop_map(NodeId);
    let state = prop_oneof![Just(Liveness::Alive), Just(Liveness::Suspect), Just(Liveness::Down), Just(Liveness::Left)];
    let claim =
        (node(), state, 0..4u64, 0..2u64, any::<bool>()).prop_map(|(node, state, incarnation, nonce, is_described)| {
            let description = DescriptionBytes::of(&member(node, nonce));
            let version = Version { incarnation, boot_nonce: nonce, digest: description.digest() };
            let by = (state == Liveness::Suspect).then_some(NodeId(incarnation));
            let claim = Claim { node, state, version, suspected_by: by };
            (claim, is_described.then_some(description))
        });
    let body = prop_oneof![
        (0..4u32).prop_map(|sequence| Body::Ping { sequence }),
        (0..4u32).prop_map(|sequence| Body::Ack { sequence }),
        (0..4u32).prop_map(|sequence| Body::Nack { sequence }),
        (0..4u32, node()).prop_map(|(sequence, target)| Body::PingRequest { sequence, target }),
        Just(Body::News),
        any::<u64>().prop_map(|summary| Body::Compare { summary }),
        Just(Body::Claims),
        Just(Body::Answer),
        prop::collection::vec(node(), 0..5).prop_map(|nodes| Body::Want { nodes }),
        Just(Body::Described),
    ];
    let sent = (node(), 0..4u64, any::<bool>(), body, prop::collection::vec(claim, 0..6));
    let sent = sent.prop_map(|(from, incarnation, has_left, body, told)| {
        let state = if has_left { Liveness::Left } else { Liveness::Alive };
        Input::Packet { from, bytes: said(state, from.0, incarnation, &body, &told) }
    });
    prop_oneof![
        8 => sent,
        6 => Just(Input::Tick),
        1 => (node(), 0..2u64).prop_map(|(node, nonce)| Input::Met(member(node, nonce))),
        1 => node().prop_map(Input::Lost),
        1 => node().prop_map(Input::Forget),
        1 => (node(), 0..2000usize).prop_map(|(to, bytes)| Input::PacketSize { to, bytes }),
        1 => (0..3u32).prop_map(|weight| Input::Describe(Member { weight, ..member(NodeId(0), 0) })),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| {
            Input::Packet { from: NodeId(1), bytes: bytes.into() }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes in whatever order: what is put out is what is believed, told once, and deadlines are kept.
    #[test]
    fn outputs_tell_every_change_exactly_once(inputs in prop::collection::vec((input(), 0..3_000_000u64), 1..80), leaves in any::<bool>()) {
        let mut list = single();
        let mut now = Instant(0);
        let mut believed: BTreeMap<NodeId, (Member, Liveness)> = BTreeMap::new();
        let inputs = inputs.into_iter().chain(leaves.then_some((Input::Leave, 0))).chain(vec![(Input::Tick, 500_000); 9]);
        for (input, pause) in inputs {
            now = now + Duration::from_micros(pause);
            let is_tick = input == Input::Tick;
            for output in handle(&mut list, now, input) {
                let (node, state) = match output {
                    Output::Packet { to, bytes } => {
                        prop_assert!(to != NodeId(0) && bytes.len() <= 2000);
                        prop_assert!(Message::decode(NodeId(0), &bytes).is_ok());
                        continue;
                    }
                    Output::Message { to, bytes } => {
                        prop_assert!(to != NodeId(0) && Message::decode(NodeId(0), &bytes).is_ok());
                        continue;
                    }
                    Output::Changed(node) => {
                        let now_is = believed.get(&node).map_or(Liveness::Down, |(_, liveness)| *liveness);
                        believed.insert(node, (member(node, 99), now_is));
                        continue;
                    }
                    Output::Forgotten(node) => {
                        prop_assert!(believed.remove(&node).is_some_and(|(_, state)| !state.is_live()));
                        continue;
                    }
                    Output::Cloned { .. } | Output::LeaveSpread => continue,
                    Output::Up(node) => (node, Liveness::Alive),
                    Output::Suspect(node) => (node, Liveness::Suspect),
                    Output::Down(node) => (node, Liveness::Down),
                    Output::Left(node) => (node, Liveness::Left),
                };
                let before = believed.get_mut(&node).expect("`Changed` comes before");
                prop_assert_ne!(before.1, state);
                before.1 = state;
            }
            for (node, liveness) in list.members().map(|(member, liveness)| (member.node, liveness)) {
                let (told, told_liveness) = believed.get_mut(&node).expect("told");
                prop_assert_eq!(*told_liveness, liveness);
                // A change that was not announced shows here: the copy is renewed only when one was.
                if told.boot_nonce == 99 {
                    *told = list.member(node).unwrap().clone();
                }
                prop_assert_eq!(&*told, list.member(node).unwrap());
            }
            prop_assert_eq!(believed.len(), list.members().count());
            prop_assert!(list.health() <= 8);
            prop_assert!(!is_tick || list.next_deadline().is_none_or(|at| at > now));
        }
    }
}
