//! Histories of forming: exactly one first layout, whatever is lost, cut or crashes.

use super::*;

#[test]
fn three_and_five_nodes_form_exactly_once_whatever_is_lost_or_crashes() {
    for seed in 0..150 {
        for nodes_count in [3, 5] {
            let setup = Setup { nodes_count, expect: nodes_count, seed_node: seed as usize % nodes_count };
            let mut world = World::new(seed, setup);
            world.add_faults(12);
            world.run_for(RUN);
            assert_eq!(world.formed.len(), 1, "seed {seed}");
            assert_eq!(world.system(0).state().formed().unwrap().stores().len(), nodes_count);
            world.assert_equal();
        }
    }
}

#[test]
fn rivals_that_know_too_few_members_still_form_exactly_one_layout() {
    let (mut rivalries, mut later_rounds) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed, Setup { nodes_count: 7, expect: 3, seed_node: seed as usize % 7 });
        world.add_faults(12);
        world.run_for(RUN);
        assert_eq!(world.formed.len(), 1, "seed {seed}: {}", world.system(0).standing());
        world.assert_equal();
        let founding = &world.system(0).state().founding;
        rivalries += usize::from(founding.proposals.len() > 1);
        later_rounds += usize::from(founding.formed().unwrap().round > 0);
    }
    assert!(rivalries >= 20, "the histories are too tame: {rivalries} with rivals");
    assert!(later_rounds > 0, "votes never split: {later_rounds}");
}

#[test]
fn one_seed_is_one_history() {
    let run = || {
        let mut world = World::new(7, Setup { nodes_count: 5, expect: 3, seed_node: 2 });
        world.add_faults(12);
        world.run_for(RUN);
        (world.events_count, world.system(0).state().fingerprint())
    };
    assert_eq!(run(), run());
}

#[test]
fn nobody_founds_alone_unless_asked_to() {
    let config = |expect, found_alone| SystemConfig {
        node: NodeId(1),
        role: NodeRole::active("z"),
        incarnation: Actor(1),
        join: JoinMode::Auto,
        formation: FormationConfig { expect, seeds: Vec::new(), found_alone },
        seed: [0; 32],
    };
    let run = |config| {
        let mut system = System::open(config, None).unwrap();
        let mut out = Vec::new();
        system.handle(Now::default(), SystemInput::Tick, &mut out);
        while let Some(SystemEffect::Persist { version, .. }) =
            std::mem::take(&mut out).into_iter().find(|effect| matches!(effect, SystemEffect::Persist { .. }))
        {
            assert!(system.state().formed().is_none(), "a vote was shown before it was durable");
            system.handle(Now::default(), SystemInput::Persisted { version }, &mut out);
        }
        system.standing()
    };
    assert_eq!(run(config(1, true)), Standing::Formed);
    assert_eq!(run(config(1, false)), Standing::NotAskedToFound);
    assert_eq!(run(config(3, true)), Standing::AwaitingMembers { seen: 1, expect: 3 });
}
