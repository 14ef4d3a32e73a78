//! Writes that some primary does not acknowledge: what is owed, and who stands in.

use super::*;

/// Node 1 of `count` in one zone, of which three hold each key.
fn scene_of(count: u64, quorum: QuorumMode) -> Scene {
    let nodes = (1..=count).map(|n| (NodeId(n), NodeRole::active("z"))).collect();
    let stores = (1..=count).map(|n| (NodeId(n), StoreMark::first(Actor::incarnation(n)))).collect();
    let mut scene = Scene::new();
    scene.rings = Rings::new(&[Layout::new(Intent { nodes }, stores)], None).unwrap();
    scene.alive = (1..=count).map(NodeId).collect();
    scene.keyspaces.values_mut().for_each(|info| info.spec.quorum = quorum);
    scene
}

impl Scene {
    /// The primaries of the key, then the fallbacks.
    fn preference(&self) -> (Vec<u64>, Vec<u64>) {
        let list = self.rings.target().preference(place().partition(CLASS));
        let numbers = |nodes: &[NodeId]| -> Vec<u64> { nodes.iter().map(|node| node.0).collect() };
        let mut primaries = numbers(&list.primaries);
        // This node's door is the first.
        primaries.sort_by_key(|node| *node != 1);
        (primaries, numbers(&list.fallbacks))
    }

    fn owed(&self) -> usize {
        self.trace.matches("owes it to").count()
    }
}

#[test]
fn what_a_primary_does_not_acknowledge_is_owed_to_it_by_one_that_did() {
    let mut scene = Scene::new();
    scene.down(3);
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied());
    // A replica that is slow is waited for, without holding the caller up; one that never answers is owed it at the end.
    scene.alive.insert(NodeId(3));
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied());
    assert_eq!(scene.coordinator.in_flight(), 0, "it has its answer");
    scene.wait(1_000);
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_write_that_all_acknowledge_owes_nothing_however_late_the_last_is() {
    let mut scene = Scene::new();
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied());
    scene.wait(500);
    scene.answer(3, applied());
    scene.wait(1_000);
    assert_eq!(scene.owed(), 0, "{}", scene.trace);
    assert!(scene.coordinator.ops.is_empty() && scene.coordinator.asks.is_empty());
}

#[test]
fn a_sloppy_write_asks_one_fallback_for_each_primary_it_cannot_do_without() {
    let mut scene = scene_of(5, QuorumMode::Sloppy);
    let (primaries, fallbacks) = scene.preference();
    scene.down(primaries[1]);
    scene.down(primaries[2]);
    scene.start(write(None));
    scene.answer(primaries[0], PeerResponse::Admitted);
    assert!(scene.trace.contains(&format!("ask {} hold for", fallbacks[0])), "{}", scene.trace);
    scene.answer(primaries[0], applied());
    scene.answer(fallbacks[0], applied());
    assert!(scene.trace.contains("written with 2, 1 by fallbacks"), "{}", scene.trace);
    // One of the two is held for, the other is owed.
    assert_eq!((scene.trace.matches("hold for").count(), scene.owed()), (1, 1), "{}", scene.trace);
}

#[test]
fn with_no_primary_left_a_sloppy_write_goes_to_fallbacks_and_a_minted_one_nowhere() {
    let mut scene = scene_of(6, QuorumMode::Strict);
    let (primaries, fallbacks) = scene.preference();
    primaries.iter().for_each(|node| scene.down(*node));
    let quorum = Some(QuorumMode::Sloppy);
    let delta = put(1).encode();
    let sloppy = ClientRequest::Write(client::Write { place: place(), delta, contexts: Vec::new(), w: None, quorum });
    scene.start(write(None));
    assert!(scene.trace.contains("unavailable"), "{}", scene.trace);
    scene.start(sloppy.clone());
    fallbacks[..2].iter().for_each(|node| scene.answer(*node, applied()));
    assert!(scene.trace.contains("written with 2, 2 by fallbacks"), "{}", scene.trace);
    scene.start(sloppy.clone());
    fallbacks.iter().for_each(|node| scene.answer(*node, PeerResponse::Refused(Refusal::Full)));
    assert!(scene.trace.contains("hints_full"), "{}", scene.trace);
    let operation = Operation::CounterAdd { by: 1 };
    let operate = client::Operate { place: place(), operation, context: None, w: None, quorum };
    scene.trace.clear();
    scene.start(ClientRequest::Operate(operate));
    assert!(scene.trace.contains("unavailable"), "{}", scene.trace);
    assert!(scene.coordinator.ops.is_empty() && scene.coordinator.asks.is_empty());
}

#[test]
fn a_slow_primary_is_stood_in_for_after_the_hedge_and_its_own_ack_replaces_the_stand_in_s() {
    let mut scene = scene_of(5, QuorumMode::Sloppy);
    let (primaries, fallbacks) = scene.preference();
    scene.start(write(None));
    scene.answer(primaries[0], PeerResponse::Admitted);
    scene.answer(primaries[0], applied());
    assert!(!scene.trace.contains("hold for"), "{}", scene.trace);
    scene.wait(50);
    assert_eq!(scene.trace.matches("hold for").count(), 1, "{}", scene.trace);
    scene.answer(primaries[1], applied());
    assert!(scene.trace.contains("written with 2\n"), "{}", scene.trace);
    scene.answer(fallbacks[0], applied());
    scene.answer(primaries[2], applied());
    assert_eq!(scene.owed(), 0);
}

#[test]
fn a_stand_in_whose_store_is_replaced_does_not_count() {
    let mut scene = scene_of(5, QuorumMode::Sloppy);
    let (primaries, fallbacks) = scene.preference();
    scene.down(primaries[1]);
    scene.down(primaries[2]);
    scene.replaced.insert(NodeId(fallbacks[0]), custody(2));
    scene.start(write(None));
    scene.answer(primaries[0], PeerResponse::Admitted);
    scene.answer(primaries[0], applied());
    scene.answer(fallbacks[0], applied());
    assert!(!scene.trace.contains("written"), "{}", scene.trace);
    scene.answer(fallbacks[1], applied());
    assert!(scene.trace.contains("written with 2, 1 by fallbacks"), "{}", scene.trace);
}
