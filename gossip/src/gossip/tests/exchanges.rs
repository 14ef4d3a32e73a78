//! Whole lists compared, message by message.

use super::*;

#[test]
fn down_in_somebodys_list_is_a_reason_to_probe_and_no_verdict() {
    let mut list = single();
    (1..=9).for_each(|node| drop(handle(&mut list, Instant(0), Input::Met(member(NodeId(node), 0)))));
    let down = (Claim::new(NodeId(7), Liveness::Down, version(7, 3)), None);
    let bytes = said(Liveness::Alive, 2, 0, &Body::Claims, &[down]);
    handle(&mut list, Instant(0), Input::Message { from: NodeId(2), bytes });
    assert_eq!(list.liveness(NodeId(7)), Liveness::Alive);
    list.timers.probe = Instant(1);
    let is_ping = |output: &Output| matches!(output, Output::Packet { to: NodeId(7), bytes } if bytes[1] == 1);
    assert!(handle(&mut list, Instant(1), Input::Tick).iter().any(is_ping));
}

#[test]
fn who_believes_a_living_member_down_is_answered_that_it_lives() {
    let mut list = single();
    (1..=3).for_each(|node| drop(handle(&mut list, Instant(0), Input::Met(member(NodeId(node), 0)))));
    let theirs = [(1, Liveness::Alive), (3, Liveness::Down)];
    let theirs = theirs.map(|(node, state)| (Claim::new(NodeId(node), state, version(node, 0)), None));
    let bytes = said(Liveness::Alive, 2, 0, &Body::Claims, &theirs);
    let out = handle(&mut list, Instant(0), Input::Message { from: NodeId(2), bytes });
    let Some(Output::Message { to: NodeId(2), bytes }) = out.first() else { panic!("{out:?}") };
    let answer = Message::decode(NodeId(0), bytes).unwrap();
    assert_eq!(answer.body, Body::Answer);
    assert_eq!(answer.told, [Claim::new(NodeId(3), Liveness::Alive, version(3, 0)).into()]);
}

#[test]
fn lists_are_compared_every_ten_seconds() {
    let mut list = single();
    handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
    let mut compared = Vec::new();
    for ms in (0..60_000).step_by(100) {
        let out = handle(&mut list, Instant(ms * 1000), Input::Tick);
        compared.extend(out.iter().any(|o| matches!(o, Output::Message { bytes, .. } if bytes[1] == 16)).then_some(ms));
        for output in out {
            if let Output::Packet { bytes, .. } = output
                && let Ok(Message { body: Body::Ping { sequence }, .. }) = Message::decode(NodeId(0), &bytes)
            {
                let ack = said(Liveness::Alive, 1, 0, &Body::Ack { sequence }, &[]);
                handle(&mut list, Instant(ms * 1000), Input::Packet { from: NodeId(1), bytes: ack });
            }
        }
    }
    assert!(compared.len() >= 6 && compared.windows(2).all(|pair| pair[1] - pair[0] == 10_000), "{compared:?}");
}

#[test]
fn whoever_was_believed_down_compares_its_list_at_once() {
    let compares_within = |state| {
        let mut list = single();
        handle(&mut list, Instant(0), Input::Met(member(NodeId(1), 0)));
        list.timers.compare = Instant(9_000_000);
        let by = (state == Liveness::Suspect).then_some(NodeId(1));
        let doubt = Claim { node: NodeId(0), state, version: version(0, 0), suspected_by: by };
        handle(&mut list, Instant(0), news(1, &[(doubt, None)]));
        let out = handle(&mut list, Instant(500_000), Input::Tick);
        out.iter().any(|output| matches!(output, Output::Message { to: NodeId(1), bytes } if bytes[1] == 16))
    };
    assert!(compares_within(Liveness::Down));
    assert!(!compares_within(Liveness::Suspect));
}

#[test]
fn a_description_that_did_not_come_is_asked_for_again_when_lists_are_compared() {
    let mut list = single();
    let n1 = NodeId(1);
    handle(&mut list, Instant(0), Input::Met(member(n1, 0)));
    let summary = |list: &Gossip| list.roster.summary(&list.own.claim());
    let new = DescriptionBytes::of(&Member { weight: 1, ..member(n1, 0) });
    let claim = Claim::new(n1, Liveness::Alive, Version { incarnation: 1, boot_nonce: 0, digest: new.digest() });
    let is_wanted = |out: &[Output]| matches!(out, [Output::Message { bytes, .. }, ..] if bytes[1] == 19);
    assert!(is_wanted(&handle(&mut list, Instant(0), news(2, &[(claim, None)]))));
    let lacking = summary(&list);
    let claims = |from| Input::Message {
        from: NodeId(from),
        bytes: said(Liveness::Alive, from, 0, &Body::Claims, &[(claim, None)]),
    };
    assert!(!is_wanted(&handle(&mut list, Instant(400_000), claims(2))[1..]));
    let out = handle(&mut list, Instant(600_000), claims(3));
    assert!(is_wanted(&out[1..]), "{out:?}");
    handle(&mut list, Instant(600_000), news(3, &[(claim, Some(new))]));
    assert_eq!(list.member(n1).unwrap().weight, 1);
    assert_ne!(summary(&list), lacking);
}
