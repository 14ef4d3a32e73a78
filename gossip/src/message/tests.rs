//! Laws of the format: what is written is read, and whatever is read gives a value or an error.

use proptest::prelude::*;
use shoal_protocol::id::{Actor, LayoutId};

use super::*;
use crate::member::{Member, StoreLease};

fn version() -> impl Strategy<Value = Version> {
    let incarnation = prop_oneof![0..300u64, 0..=INCARNATION_MAX];
    (incarnation, any::<u64>(), any::<u64>()).prop_map(|(incarnation, boot_nonce, digest)| Version {
        incarnation,
        boot_nonce,
        digest,
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    (any::<u64>(), version(), 0..4u8, any::<u64>()).prop_map(|(node, version, state, by)| match state {
        0 => Claim::new(NodeId(node), Liveness::Alive, version),
        1 => Claim::suspect(NodeId(node), version, NodeId(by)),
        2 => Claim::new(NodeId(node), Liveness::Down, version),
        _ => Claim::new(NodeId(node), Liveness::Left, version),
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<u32>().prop_map(|sequence| Body::Ping { sequence }),
        any::<u32>().prop_map(|sequence| Body::Ack { sequence }),
        any::<u32>().prop_map(|sequence| Body::Nack { sequence }),
        (any::<u32>(), any::<u64>())
            .prop_map(|(sequence, target)| Body::PingRequest { sequence, target: NodeId(target) }),
        Just(Body::News),
        any::<u64>().prop_map(|summary| Body::Compare { summary }),
        Just(Body::Claims),
        Just(Body::Answer),
        prop::collection::vec(any::<u64>().prop_map(NodeId), 0..=WANT_COUNT_MAX).prop_map(|nodes| Body::Want { nodes }),
        Just(Body::Described),
    ]
}

prop_compose! {
    fn any_member()(
        texts in [".{0,80}", ".{0,10}", ".{0,10}"],
        weight in any::<u32>(),
        peers in prop::collection::vec(".{0,310}", 0..10),
        clients in prop::collection::vec("[a-z:0-9]{0,20}", 0..3),
        stores in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
        layouts in prop::collection::vec(any::<u64>(), 0..10),
    ) -> Member {
        let [name, zone, version] = texts;
        let stores = stores.into_iter().map(|(i, lease_end)| StoreLease { incarnation: Actor(i), lease_end }).collect();
        let layouts = layouts.into_iter().map(LayoutId).collect();
        Member {
            node: NodeId(7), name, zone, weight, advertise_peer: peers, advertise_client: clients, version, stores,
            boot_nonce: 9, layouts,
        }
    }
}

fn message() -> impl Strategy<Value = (Claim, Body, Vec<(Claim, Option<Member>)>)> {
    let told = prop::collection::vec((claim(), prop::option::weighted(0.2, any_member())), 0..20);
    (version(), any::<bool>(), body(), told).prop_map(|(version, has_left, body, told)| {
        let state = if has_left { Liveness::Left } else { Liveness::Alive };
        (Claim::new(NodeId(3), state, version), body, told)
    })
}

fn encode((sender, body, told): &(Claim, Body, Vec<(Claim, Option<Member>)>)) -> (Bytes, Vec<Told>) {
    let mut draft = Draft::new(sender, body, BYTES_MAX);
    let mut expected = Vec::new();
    for (claim, member) in told {
        let bytes = member.clone().map(|member| DescriptionBytes::of(&member.within_limits()));
        assert!(draft.put(claim, bytes.as_ref()));
        expected.push(Told { claim: *claim, description: bytes.map(|bytes| Bytes::copy_from_slice(&bytes)) });
    }
    (draft.finish(), expected)
}

/// Reads as the core does: the message, then each description.
fn read(bytes: &Bytes) {
    if let Ok(message) = Message::decode(NodeId(3), bytes) {
        assert!(message.told.len() * CLAIM_BYTES_MIN <= bytes.len());
        for told in message.told {
            if let Some(description) = told.description {
                let named = digest_of(&description, told.claim.version);
                if let Ok(description) = Description::decode(told.claim.node, named, &description) {
                    assert_eq!(description.member.clone().within_limits(), description.member);
                }
            }
        }
    }
}

/// A version that names these bytes, so that reading goes on behind the digest.
fn digest_of(description: &Bytes, version: Version) -> Version {
    let hash = blake3::hash(description);
    Version { digest: u64::from_be_bytes(*hash.as_bytes().first_chunk().unwrap()), ..version }
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in message()) {
        let (bytes, told) = encode(&message);
        let expected = Message { sender: message.0, body: message.1, told };
        prop_assert_eq!(Message::decode(NodeId(3), &bytes), Ok(expected));
    }

    #[test]
    fn a_description_is_read_as_it_was_written(member in any_member()) {
        let member = member.within_limits();
        let bytes = DescriptionBytes::of(&member);
        prop_assert!(bytes.len() < 6 * 1024);
        let version = Version { incarnation: 0, boot_nonce: 9, digest: bytes.digest() };
        let copy = Bytes::copy_from_slice(&bytes);
        prop_assert_eq!(Description::decode(NodeId(7), version, &copy), Ok(Description { member, bytes }));
        let other = Version { digest: version.digest ^ 1, ..version };
        prop_assert!(Description::decode(NodeId(7), other, &copy).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_a_message_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..22u8) {
        read(&Bytes::from(bytes.clone()));
        // Past the first checks.
        bytes.splice(0..bytes.len().min(3), [VERSION, kind, 0]);
        read(&Bytes::from(bytes));
    }

    #[test]
    fn mutated_messages_are_a_message_or_an_error(
        message in message(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&message).0.to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read(&Bytes::from(bytes.clone()));
        bytes.truncate(end.index(bytes.len()));
        read(&Bytes::from(bytes));
    }

    #[test]
    fn arbitrary_descriptions_are_a_description_or_an_error(bytes in prop::collection::vec(0..20u8, 0..200)) {
        let bytes = Bytes::from(bytes);
        let version = digest_of(&bytes, Version { incarnation: 0, boot_nonce: 0, digest: 0 });
        if let Ok(description) = Description::decode(NodeId(7), version, &bytes) {
            prop_assert_eq!(&*DescriptionBytes::of(&description.member), &*bytes);
        }
    }
}

/// The example of docs/formats/gossip.md.
#[test]
fn a_ping_has_the_bytes_that_are_documented() {
    let own = Claim::new(NodeId(3), Liveness::Alive, Version { incarnation: 1, boot_nonce: 2, digest: 3 });
    let suspect = Claim::suspect(NodeId(5), Version { incarnation: 300, boot_nonce: 8, digest: 9 }, NodeId(6));
    let mut draft = Draft::new(&own, &Body::Ping { sequence: 7 }, BYTES_MAX);
    draft.put(&suspect, None);
    let hex: String = draft.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    let documented = "010100 01 0000000000000002 0000000000000003 00000007 \
                      0000000000000005 01 ac02 0000000000000008 0000000000000009 0000000000000006";
    assert_eq!(hex, documented.replace(' ', ""));
}

#[test]
fn other_versions_and_long_messages_are_refused_by_name() {
    let own = Claim::new(NodeId(3), Liveness::Alive, Version { incarnation: 1, boot_nonce: 2, digest: 3 });
    let mut bytes = Draft::new(&own, &Body::News, BYTES_MAX).finish().to_vec();
    bytes[0] = 2;
    assert_eq!(Message::decode(NodeId(3), &bytes.into()), Err(Malformed::ForeignVersion { version: 2 }));
    let long = Bytes::from(vec![VERSION; BYTES_MAX + 1]);
    assert_eq!(Message::decode(NodeId(3), &long), Err(Malformed::TooLong { bytes: BYTES_MAX + 1 }));
}

#[test]
fn a_sender_is_never_suspect_or_down_in_its_own_words() {
    for state in [Liveness::Suspect, Liveness::Down] {
        let own = Claim::new(NodeId(3), state, Version { incarnation: 1, boot_nonce: 2, digest: 3 });
        let bytes = Draft::new(&own, &Body::News, BYTES_MAX).finish();
        assert!(matches!(Message::decode(NodeId(3), &bytes), Err(Malformed::BadValue { .. })));
    }
}

#[test]
fn a_draft_takes_whole_claims_within_its_bytes() {
    let version = Version { incarnation: 1, boot_nonce: 2, digest: 3 };
    let own = Claim::new(NodeId(3), Liveness::Alive, version);
    let mut draft = Draft::new(&own, &Body::Ping { sequence: 1 }, 100);
    let count = (0..9).filter(|&node| draft.put(&Claim::new(NodeId(node), Liveness::Down, version), None)).count();
    assert!(draft.is_full());
    let bytes = draft.finish();
    assert!(bytes.len() <= 100 && bytes.len() > 100 - CLAIM_BYTES_MIN);
    assert_eq!(Message::decode(NodeId(3), &bytes).unwrap().told.len(), count);
}
