//! Histories of keyspace changes: what is acknowledged stays, and of one name there is one.

use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceChange, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::Class;
use shoal_protocol::object::Conflict;

use super::*;

fn name(text: &str) -> KeyspaceName {
    KeyspaceName::new(text).unwrap()
}

fn create(text: &str) -> KeyspaceCommand {
    let class = Class { n: 3, r: 0, w: 0 };
    let (layout, conflict, quorum) = (KeyspaceLayout::Collection, Conflict::Siblings, QuorumMode::Strict);
    KeyspaceCommand::Create { name: name(text), spec: KeyspaceSpec { class, layout, conflict, quorum, ttl_s: None } }
}

#[test]
fn of_concurrent_creations_of_one_name_at_most_one_is_acknowledged_and_it_stays() {
    let mut won = 0;
    for seed in 0..150 {
        let nodes_count = if seed % 2 == 0 { 3 } else { 5 };
        let mut world = formed_world(seed, nodes_count);
        world.add_faults(8);
        let mut requests = Vec::new();
        for _ in 0..6 {
            let pause = Duration::from_micros(world.below(700_000));
            world.run_for(pause);
            let node = world.below(nodes_count as u64) as usize;
            requests.push(world.change(node, create("app")));
        }
        world.run_for(RUN);
        let acked: Vec<&KeyspaceInfo> =
            requests.iter().filter_map(|request| world.verdicts.get(request)?.as_ref().ok()).collect();
        assert!(acked.len() <= 1, "seed {seed}: {acked:?}");
        world.assert_equal();
        let visible: Vec<&KeyspaceInfo> = world.system(0).keyspaces().values().collect();
        assert!(visible.len() <= 1, "seed {seed}: {visible:?}");
        if let Some(acked) = acked.first() {
            assert_eq!(visible, [*acked], "seed {seed}");
            won += 1;
        }
        assert_eq!(
            world.system(0).state().keyspaces.records.len(),
            visible.len(),
            "seed {seed}: something was left behind"
        );
    }
    assert!(won >= 100, "too few creations succeeded: {won}");
}

#[test]
fn a_change_is_acknowledged_by_a_majority_and_seen_by_all() {
    let mut world = formed_world(1, 3);
    let made = world.change(0, create("app"));
    world.run_for(SETTLE);
    let info = world.verdicts[&made].clone().unwrap();
    assert_eq!(world.system(2).keyspace_by_name(&name("app")), Some(info.clone()));

    let change = KeyspaceChange { quorum: Some(QuorumMode::Sloppy), ttl_s: Some(Some(60)) };
    let set = world.change(1, KeyspaceCommand::Set { name: name("app"), change });
    world.run_for(SETTLE);
    let set = world.verdicts[&set].clone().unwrap();
    assert_eq!((set.id, set.spec.quorum, set.spec.ttl_s), (info.id, QuorumMode::Sloppy, Some(60)));
    assert_eq!(world.system(0).keyspace_by_id(info.id), Some(&set));

    let dropped = world.change(2, KeyspaceCommand::Drop { name: name("app") });
    world.run_for(SETTLE);
    assert_eq!(world.verdicts[&dropped], Ok(set));
    let again = world.change(0, create("app"));
    world.run_for(SETTLE);
    assert_ne!(world.verdicts[&again].as_ref().unwrap().id, info.id);
    assert!(world.system(1).state().is_dropped(info.id));
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_a_creation_leaves_nothing() {
    let mut world = formed_world(1, 3);
    let made = world.change(0, create("app"));
    world.run_for(SETTLE);
    assert!(world.verdicts[&made].is_ok());
    world.link(0, 1, false);
    world.link(0, 2, false);
    let change = KeyspaceChange { quorum: Some(QuorumMode::Sloppy), ttl_s: None };
    let set = world.change(0, KeyspaceCommand::Set { name: name("app"), change });
    let other = world.change(0, create("other"));
    world.run_for(SETTLE);
    assert_eq!(world.verdicts[&set], Err(RequestError::Unknown { acked: 1, needed: 2 }));
    assert_eq!(world.verdicts[&other], Err(RequestError::Unavailable { replied: 1, needed: 2 }));
    world.link(0, 1, true);
    world.run_for(SETTLE);
    world.assert_equal();
    assert_eq!(world.system(1).keyspaces().len(), 1);
}

#[test]
fn a_wiped_member_learns_the_layout_announces_its_new_store_and_counts_again() {
    for seed in 0..20 {
        let mut world = formed_world(seed, 3);
        world.crash(1);
        world.machines[1] = Machine { boot: world.machines[1].boot, wipes: 1, ..Machine::default() };
        world.start(1);
        world.run_for(SETTLE);
        world.assert_equal();
        assert_eq!(world.system(0).state().incarnation(node_id(1)), Some(Actor(1_101)));
        world.link(0, 2, false);
        world.link(1, 2, false);
        let made = world.change(0, create("app"));
        world.run_for(SETTLE);
        assert!(world.verdicts[&made].is_ok(), "seed {seed}: {:?}", world.verdicts[&made]);
    }
}

#[test]
fn a_member_that_forgot_a_rival_does_not_help_the_other_one_to_a_majority() {
    let mut won = 0;
    for seed in 0..300 {
        let mut world = formed_world(seed, 3);
        world.add_faults(8);
        let wiped_at = world.below(6);
        let mut requests = Vec::new();
        for at in 0..6 {
            let pause = Duration::from_micros(world.below(300_000));
            world.run_for(pause);
            let node = if at % 2 == 0 { 0 } else { 2 };
            if world.machines[node].system.is_some() {
                requests.push(world.change(node, create("app")));
            }
            if at == wiped_at {
                let pause = Duration::from_micros(world.below(300_000));
                world.run_for(pause);
                world.crash(1);
                world.machines[1] = Machine { boot: world.machines[1].boot, wipes: 1, ..Machine::default() };
                world.start(1);
            }
        }
        world.run_for(RUN);
        let acked = requests.iter().filter(|&request| matches!(world.verdicts.get(request), Some(Ok(_)))).count();
        assert!(acked <= 1, "seed {seed}: {acked} creations of one name were acknowledged");
        world.assert_equal();
        let visible = world.system(0).keyspaces().len();
        assert!(visible <= 1, "seed {seed}: {:?}", world.system(0).keyspaces());
        won += acked;
    }
    assert!(won >= 150, "too few creations succeeded: {won}");
}

#[test]
fn what_cannot_be_a_keyspace_is_refused_at_once() {
    let mut world = formed_world(1, 3);
    let mut refused = |command| {
        let request = world.change(0, command);
        world.verdicts[&request].clone().unwrap_err().code()
    };
    let with = |change: fn(&mut KeyspaceSpec)| match create("app") {
        KeyspaceCommand::Create { name, mut spec } => {
            change(&mut spec);
            KeyspaceCommand::Create { name, spec }
        }
        KeyspaceCommand::Set { .. } | KeyspaceCommand::Drop { .. } => unreachable!(),
    };
    assert_eq!(refused(create("_system")), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.n = 0)), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.n = 16)), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.w = 4)), "bad_request");
    assert_eq!(refused(with(|spec| spec.ttl_s = Some(0))), "bad_request");
    assert_eq!(refused(KeyspaceCommand::Drop { name: name("app") }), "unknown_keyspace");
    let change = KeyspaceChange { quorum: None, ttl_s: Some(Some(9)) };
    assert_eq!(refused(KeyspaceCommand::Set { name: name("app"), change }), "unknown_keyspace");
    let mut fresh = World::new(1, Setup { nodes_count: 1, expect: 2, seed_node: 0 });
    fresh.run_for(Duration::ZERO);
    let request = fresh.change(0, create("app"));
    assert_eq!(fresh.verdicts[&request].as_ref().unwrap_err().code(), "not_serving");
}
