//! Scenes between a few lists, most of them in a network without faults.

mod any_input;
mod exchanges;

use std::time::Duration;

use shoal_protocol::id::{Actor, LayoutId};

use super::*;
use crate::claim::{Claim, Version};
use crate::member::StoreLease;
use crate::message::{BYTES_MAX, DescriptionBytes};
use crate::simulation::{Effect, Network, Seen, feed, gossip, member};

const SECOND: Duration = Duration::from_secs(1);

fn network(count: usize) -> Network<Gossip> {
    Network::joined(1, count, |node| gossip(&GossipConfig::default(), node, 0, Instant(0), 1))
}

fn single() -> Gossip {
    gossip(&GossipConfig::default(), NodeId(0), 0, Instant(0), 1)
}

fn handle(list: &mut Gossip, now: Instant, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    list.handle(now, input, &mut out);
    out
}

fn tell(network: &mut Network<Gossip>, index: usize, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    network.act(index, |list, now, out| {
        let mut copy = Vec::new();
        list.handle(now, input, &mut copy);
        out.extend(copy.iter().filter_map(|output| {
            match output {
                Output::Packet { to, bytes } => Some((*to, bytes.clone(), false)),
                Output::Message { to, bytes } => Some((*to, bytes.clone(), true)),
                Output::Changed(_)
                | Output::Up(_)
                | Output::Suspect(_)
                | Output::Down(_)
                | Output::Left(_)
                | Output::Forgotten(_)
                | Output::Cloned { .. }
                | Output::LeaveSpread => None,
            }
            .map(|(to, bytes, is_stream)| Effect::Send { to, bytes, is_stream, is_probe: false })
        }));
        outputs = copy;
    });
    outputs
}

fn beliefs(history: &[Seen], observer: usize, subject: usize) -> Vec<Liveness> {
    let seen = history.iter().filter(|seen| seen.observer == observer && seen.subject == subject);
    seen.map(|seen| seen.liveness).collect()
}

/// What a member that is `state` in `version` could send.
fn said(
    state: Liveness,
    node: u64,
    incarnation: u64,
    body: &Body,
    told: &[(Claim, Option<DescriptionBytes>)],
) -> Bytes {
    let mut draft = Draft::new(&Claim::new(NodeId(node), state, version(node, incarnation)), body, BYTES_MAX);
    for (claim, description) in told {
        assert!(draft.put(claim, description.as_ref()));
    }
    draft.finish()
}

fn version(node: u64, incarnation: u64) -> Version {
    let digest = DescriptionBytes::of(&member(NodeId(node), 0)).digest();
    Version { incarnation, boot_nonce: 0, digest }
}

fn news(from: u64, told: &[(Claim, Option<DescriptionBytes>)]) -> Input {
    Input::Packet { from: NodeId(from), bytes: said(Liveness::Alive, from, 0, &Body::News, told) }
}

#[test]
fn nothing_is_sent_before_the_first_input_and_a_deadline_is_there() {
    let list = single();
    assert!(list.next_deadline().is_some_and(|at| at < Instant(0) + SECOND));
    assert_eq!((list.members().count(), list.liveness(NodeId(9)), list.health()), (0, Liveness::Down, 0));
}

#[test]
fn a_member_that_was_met_is_changed_then_up_once() {
    let mut list = single();
    let n1 = NodeId(1);
    let out = handle(&mut list, Instant(0), Input::Met(member(n1, 0)));
    assert_eq!(out[..2], [Output::Changed(n1), Output::Up(n1)]);
    assert!(matches!(out[2..], [Output::Message { to, .. }] if to == n1));
    assert_eq!(handle(&mut list, Instant(0), Input::Met(member(n1, 0))), []);
    assert_eq!(list.member(n1), Some(&member(n1, 0)));
}

#[test]
fn whoever_joins_through_a_seed_is_known_to_all_and_knows_all() {
    let mut network = Network::new(3, 5, |node| gossip(&GossipConfig::default(), node, 0, Instant(0), 3));
    (1..5).for_each(|other| network.introduce(other, 0));
    assert!(network.run_while(Instant(0) + SECOND * 5, |network| !network.agrees()));
    for list in (0..5).map(|index| network.protocol(index)) {
        assert!(list.members().all(|(known, _)| *known == member(known.node, 0)));
    }
}

#[test]
fn an_announced_change_is_told_everywhere() {
    let mut network = network(8);
    let changed = Member { layouts: vec![LayoutId(8)], ..member(NodeId(3), 0) };
    tell(&mut network, 3, Input::Describe(changed.clone()));
    network.run_for(SECOND * 5);
    for index in (0..8).filter(|index| *index != 3) {
        assert_eq!(network.protocol(index).member(NodeId(3)), Some(&changed));
    }
    assert_eq!(network.take_history().iter().filter(|seen| seen.at > Instant(20_000_000)).count(), 0);
}

#[test]
fn a_description_too_long_for_a_datagram_is_asked_for() {
    let mut network = network(5);
    let stores = (0..16).map(|n| StoreLease { incarnation: Actor(n), lease_end: n }).collect();
    let addresses = (0..8).map(|n| format!("{n}{}:7400", "x".repeat(250))).collect();
    let long = Member { stores, advertise_peer: addresses, ..member(NodeId(2), 0) };
    tell(&mut network, 2, Input::Describe(long.clone()));
    network.run_for(SECOND * 5);
    assert!((0..5).filter(|index| *index != 2).all(|index| network.protocol(index).member(NodeId(2)) == Some(&long)));
}

#[test]
fn a_member_that_dies_is_suspected_then_down_and_kept() {
    let mut network = network(5);
    network.take_history();
    network.kill(4);
    network.run_for(SECOND * 20);
    let history = network.take_history();
    for observer in 0..4 {
        assert_eq!(beliefs(&history, observer, 4), [Liveness::Suspect, Liveness::Down]);
        assert!(network.protocol(observer).member(NodeId(4)).is_some());
        assert_eq!(network.protocol(observer).health(), 0);
    }
}

#[test]
fn who_is_suspected_wrongly_refutes_and_never_goes_down() {
    let mut network = network(5);
    network.take_history();
    let doubt = Claim::suspect(NodeId(4), version(4, 9), NodeId(2));
    network.act(1, |list, now, out| feed(list, now, news(2, &[(doubt, None)]), out));
    network.run_for(SECOND * 30);
    assert_eq!(beliefs(&network.take_history(), 1, 4), [Liveness::Suspect, Liveness::Alive]);
    assert!(network.agrees());
}

#[test]
fn a_member_that_others_reach_is_not_suspected() {
    let mut network = network(5);
    network.take_history();
    network.cut(0, 1);
    network.cut(1, 0);
    network.run_for(SECOND * 60);
    assert_eq!(network.take_history(), []);
}

#[test]
fn a_lost_connection_leads_to_a_probe_at_once_and_to_no_verdict() {
    let mut list = single();
    handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
    let out = handle(&mut list, Instant(5), Input::Lost(NodeId(1)));
    assert!(matches!(&out[..], [Output::Packet { to: NodeId(1), bytes }] if bytes[1] == 1), "{out:?}");
    assert_eq!(handle(&mut list, Instant(6), Input::Lost(NodeId(1))), []);
    assert_eq!(handle(&mut list, Instant(7), Input::Lost(NodeId(9))), []);
    assert_eq!(list.liveness(NodeId(1)), Liveness::Alive);
}

/// What a list with one member, in incarnation 5 and believed `state`, says first to that member when it is pinged by it.
fn told_first(config: &GossipConfig, state: Liveness, incarnation: u64) -> Option<Claim> {
    let mut list = gossip(config, NodeId(0), 0, Instant(0), 1);
    handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
    let by = (state == Liveness::Suspect).then_some(NodeId(2));
    let claim = Claim { node: NodeId(1), state, version: version(1, 5), suspected_by: by };
    handle(&mut list, Instant(0), news(2, &[(claim, None)]));
    // So that nothing is told but what must be.
    list.broadcasts = Broadcasts::default();
    let bytes = said(Liveness::Alive, 1, incarnation, &Body::Ping { sequence: 9 }, &[]);
    let out = handle(&mut list, Instant(1), Input::Packet { from: NodeId(1), bytes });
    let Some(Output::Packet { bytes, .. }) = out.first() else { panic!("{out:?}") };
    let message = Message::decode(NodeId(0), bytes).unwrap();
    assert_eq!(message.body, Body::Ack { sequence: 9 });
    message.told.first().map(|told| told.claim)
}

#[test]
fn a_member_is_told_first_what_it_must_hear_of_itself() {
    let ours = GossipConfig::default();
    let said = |told: Option<Claim>| told.map(|claim| (claim.state, claim.version.incarnation));
    assert_eq!(said(told_first(&ours, Liveness::Alive, 5)), None);
    // It speaks as in its earlier life.
    assert_eq!(said(told_first(&ours, Liveness::Alive, 0)), Some((Liveness::Alive, 5)));
    for state in [Liveness::Suspect, Liveness::Down, Liveness::Left] {
        assert_eq!(said(told_first(&ours, state, 5)), Some((state, 5)));
    }
}

#[test]
fn without_the_buddy_system_a_suspect_is_not_told_first() {
    let plain = GossipConfig::plain_swim();
    assert_eq!(told_first(&plain, Liveness::Suspect, 5), None);
    assert!(told_first(&plain, Liveness::Down, 5).is_some());
}

#[test]
fn missing_nacks_make_a_node_doubt_itself_and_nacks_do_not() {
    let health_after = |is_deaf: bool| {
        let mut network = network(5);
        network.kill(4);
        if is_deaf {
            (1..4).for_each(|other| network.cut(other, 0));
        }
        network.run_for(SECOND * 5);
        network.protocol(0).health()
    };
    assert_eq!(health_after(false), 0);
    assert!(health_after(true) >= 3);
}

#[test]
fn without_lifeguard_a_node_never_doubts_itself() {
    let config = GossipConfig::plain_swim();
    let mut network = Network::joined(1, 5, |node| gossip(&config, node, 0, Instant(0), 1));
    network.partition(|index| index == 0);
    network.run_for(SECOND * 10);
    assert_eq!(network.protocol(0).health(), 0);
}

#[test]
fn who_leaves_is_left_everywhere_and_is_not_probed() {
    let mut network = network(5);
    network.take_history();
    let out = tell(&mut network, 4, Input::Leave);
    assert!(!out.contains(&Output::LeaveSpread));
    let mut spread_at = None;
    for ms in 0..1000 {
        network.run_for(Duration::from_millis(1));
        if spread_at.is_none() && network.protocol(4).next_deadline().is_none() {
            spread_at = Some(ms);
        }
    }
    // Three rounds, and one more for what was sent last.
    assert!(spread_at.is_some_and(|ms| ms < 650), "{spread_at:?}");
    network.kill(4);
    network.run_for(SECOND * 60);
    let history = network.take_history();
    assert!((0..4).all(|observer| beliefs(&history, observer, 4) == [Liveness::Left]));
}

#[test]
fn leaving_alone_is_over_at_once_and_is_done_once() {
    let mut list = single();
    assert_eq!(handle(&mut list, Instant(0), Input::Leave), [Output::LeaveSpread]);
    assert_eq!(handle(&mut list, Instant(0), Input::Leave), []);
    assert_eq!(handle(&mut list, Instant(9_000_000), Input::Tick), []);
}

#[test]
fn a_restarted_member_is_back_within_a_second_whatever_was_believed_of_it() {
    for down_for in [0, 2, 60] {
        let mut network = network(5);
        network.kill(4);
        network.run_for(SECOND * down_for);
        let now = network.now();
        network.restart(4, gossip(&GossipConfig::default(), NodeId(4), 7, now, 7));
        network.act(4, |list, now, out| feed(list, now, Input::Met(member(NodeId(0), 0)), out));
        network.act(0, |list, now, out| feed(list, now, Input::Met(member(NodeId(4), 7)), out));
        let is_known = |network: &Network<Gossip>| {
            network.agrees() && (0..4).all(|index| network.protocol(index).member(NodeId(4)).unwrap().boot_nonce == 7)
        };
        assert!(network.run_while(now + SECOND, |network| !is_known(network)), "after {down_for} s");
    }
}

#[test]
fn a_member_that_moved_is_known_under_its_new_address() {
    let mut network = network(5);
    network.kill(4);
    network.run_for(SECOND * 60);
    let now = network.now();
    let moved = Member { advertise_peer: vec!["elsewhere:1".into()], boot_nonce: 7, ..member(NodeId(4), 0) };
    network.restart(4, Gossip::new(GossipConfig::default(), moved.clone(), [7; 32], now));
    network.act(4, |list, now, out| feed(list, now, Input::Met(member(NodeId(0), 0)), out));
    network.run_for(SECOND * 3);
    assert!((0..4).all(|index| network.protocol(index).member(NodeId(4)) == Some(&moved)));
    assert!(network.agrees());
}

#[test]
fn a_member_comes_up_with_the_description_it_has_then() {
    let mut list = single();
    let n1 = NodeId(1);
    handle(&mut list, Instant(0), Input::Met(member(n1, 0)));
    handle(&mut list, Instant(0), Input::Met(member(NodeId(2), 0)));
    let mut told = handle(&mut list, Instant(0), news(2, &[(Claim::new(n1, Liveness::Down, version(1, 0)), None)]));
    assert!(told.contains(&Output::Down(n1)));
    // It is back with another description; the claim comes first, then what it says.
    let back = DescriptionBytes::of(&Member { weight: 1, ..member(n1, 5) });
    let version = Version { incarnation: 9, boot_nonce: 5, digest: back.digest() };
    let claim = Claim::new(n1, Liveness::Alive, version);
    told = handle(&mut list, Instant(1), news(2, &[(claim, None)]));
    assert!(matches!(&told[..], [Output::Message { to: NodeId(2), bytes }] if bytes[1] == 19), "{told:?}");
    assert_eq!(list.liveness(n1), Liveness::Down);
    told = handle(&mut list, Instant(2), news(2, &[(claim, Some(back))]));
    assert_eq!(told, [Output::Changed(n1), Output::Up(n1)]);
}

#[test]
fn only_who_is_gone_can_be_forgotten_and_its_echo_does_not_bring_it_back() {
    let mut list = single();
    let n1 = NodeId(1);
    handle(&mut list, Instant(0), Input::Met(member(n1, 0)));
    handle(&mut list, Instant(0), Input::Met(member(NodeId(2), 0)));
    assert_eq!(handle(&mut list, Instant(0), Input::Forget(n1)), []);
    let described = DescriptionBytes::of(&member(n1, 0));
    let down = (Claim::new(n1, Liveness::Down, version(1, 3)), Some(described.clone()));
    handle(&mut list, Instant(0), news(2, std::slice::from_ref(&down)));
    assert_eq!(handle(&mut list, Instant(0), Input::Forget(n1)), [Output::Forgotten(n1)]);
    for echo in [down.0, Claim::new(n1, Liveness::Alive, version(1, 3))] {
        handle(&mut list, Instant(1), news(2, &[(echo, Some(described.clone()))]));
        assert_eq!(list.member(n1), None);
    }
    let alive = Claim::new(n1, Liveness::Alive, version(1, 4));
    let out = handle(&mut list, Instant(2), news(2, &[(alive, Some(described))]));
    assert_eq!(out, [Output::Changed(n1), Output::Up(n1)]);
}

#[test]
fn two_processes_with_one_id_are_told_of_each_other() {
    let mut one = gossip(&GossipConfig::default(), NodeId(1), 1, Instant(0), 1);
    let mut clone = gossip(&GossipConfig::default(), NodeId(1), 2, Instant(0), 2);
    let mut third = single();
    let mut found = Vec::new();
    let mut carry = |out: Vec<Output>, list: &mut Gossip, from: u64| {
        let mut answers = Vec::new();
        for output in out {
            match output {
                Output::Packet { bytes, .. } | Output::Message { bytes, .. } => {
                    answers.extend(handle(list, Instant(0), Input::Message { from: NodeId(from), bytes }));
                }
                Output::Cloned { boot_nonce } => found.push(boot_nonce),
                Output::Changed(_)
                | Output::Up(_)
                | Output::Suspect(_)
                | Output::Down(_)
                | Output::Left(_)
                | Output::Forgotten(_)
                | Output::LeaveSpread => {}
            }
        }
        answers
    };
    handle(&mut third, Instant(0), Input::Met(member(NodeId(1), 1)));
    for _ in 0..4 {
        for list in [&mut one, &mut clone] {
            let mut out = handle(list, Instant(0), Input::Met(member(NodeId(0), 0)));
            out.extend(handle(list, Instant(0), Input::Lost(NodeId(0))));
            for _ in 0..3 {
                let answers = carry(out, &mut third, 1);
                out = carry(answers, list, 0);
            }
        }
        // So that `Lost` probes again.
        for list in [&mut one, &mut clone] {
            let later = list.next_deadline().unwrap();
            handle(list, later + SECOND * 9, Input::Tick);
        }
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let mut list = single();
    handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
    for bytes in [&[][..], &[1], &[1, 99, 0], &[2, 1, 0], &[0xff; 2000]] {
        let out =
            handle(&mut list, Instant(0), Input::Packet { from: NodeId(1), bytes: Bytes::copy_from_slice(bytes) });
        assert_eq!(out, []);
    }
    let expected = Dropped { malformed: 3, foreign_version: 2, ..Dropped::default() };
    assert_eq!((list.dropped(), list.members().count()), (expected, 1));
}

#[test]
fn invented_members_are_bounded_and_make_room_for_one_that_is_there() {
    let mut list = single();
    handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
    for node in 10..2000 {
        let described = DescriptionBytes::of(&member(NodeId(node), 0));
        let invented = Claim::new(NodeId(node), Liveness::Down, version(node, 0));
        handle(&mut list, Instant(0), news(1, &[(invented, Some(described))]));
    }
    assert_eq!(list.members().count(), 1024);
    assert_eq!(list.dropped().members, 1990 - 1023);
    let out = handle(&mut list, Instant(0), Input::Met(member(NodeId(5000), 0)));
    assert_eq!(out[..3], [Output::Forgotten(NodeId(10)), Output::Changed(NodeId(5000)), Output::Up(NodeId(5000))]);
    assert_eq!(list.members().count(), 1024);
}

#[test]
fn packets_keep_to_their_size() {
    let mut list = single();
    for node in 1..200 {
        handle(&mut list, Instant(0), Input::Met(member(NodeId(node), 0)));
    }
    for (bytes_max, told_max) in [(1100, None), (1400, Some(1400)), (256, Some(256)), (256, Some(3))] {
        if let Some(bytes) = told_max {
            handle(&mut list, Instant(0), Input::PacketSize { to: NodeId(1), bytes });
        }
        let ping = said(Liveness::Alive, 1, 0, &Body::Ping { sequence: 1 }, &[]);
        let out = handle(&mut list, Instant(0), Input::Packet { from: NodeId(1), bytes: ping });
        let Some(Output::Packet { bytes, .. }) = out.last() else { panic!("{out:?}") };
        assert!(bytes.len() <= bytes_max && bytes.len() > bytes_max - 250, "{} of {bytes_max}", bytes.len());
    }
}

#[test]
fn news_is_urgent_as_often_as_swim_says() {
    let limit = |others: u64| {
        let mut list = single();
        (1..=others).for_each(|node| drop(handle(&mut list, Instant(0), Input::Met(member(NodeId(node), 0)))));
        list.retransmit_limit()
    };
    assert_eq!([4, 8, 9, 98, 99].map(limit), [4, 4, 8, 8, 12]);
}

#[test]
fn one_seed_is_one_history() {
    let history = |seed| {
        let config = GossipConfig::default();
        let mut network = Network::joined(seed, 10, |node| gossip(&config, node, 0, Instant(0), seed));
        network.set_loss(0.3);
        network.run_for(SECOND * 30);
        (network.take_history(), network.take_traffic())
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}
