//! Who is refused, with which words, and that the node goes on.

use bytes::Bytes;
use shoal_node::host::limits::LinkLimits;
use shoal_node::host::tls::{ALPN_CLIENT, ALPN_GOSSIP, ALPN_PEER, Role};
use shoal_protocol::client::{ClientRequest, ClientResponse};
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{CLIENT_FRAME_BYTES_MAX, FrameKind};
use shoal_protocol::id::{ClusterId, NodeId};
use shoal_protocol::peer::{PeerHello, PeerResponse, Refusal};

use super::caller::{Caller, Lone, client_hello, peer_hello, secret};

const STRANGER: NodeId = NodeId(7);

#[tokio::test]
async fn a_certificate_of_another_secret_opens_nothing() {
    let node = Lone::start().await;
    for alpn in [ALPN_PEER, ALPN_GOSSIP, ALPN_CLIENT] {
        let foreign = Some((secret(2), Role::Node(STRANGER)));
        // TLS 1.3 lets the dialer finish first: the refusal may come with the handshake or right after it.
        if let Ok(mut caller) = Caller::dial(node.address(), alpn, &secret(1), foreign).await {
            assert!(caller.is_cut_off().await);
        }
    }
    node.goes_on().await;
}

#[tokio::test]
async fn a_node_of_another_secret_is_not_trusted() {
    let node = Lone::start().await;
    assert!(Caller::dial(node.address(), ALPN_CLIENT, &secret(2), None).await.is_err());
    node.goes_on().await;
}

#[tokio::test]
async fn only_a_nodes_own_certificate_opens_the_nodes_door() {
    let node = Lone::start().await;
    let hello = peer_hello(node.cluster(), STRANGER);
    for role in [None, Some(Role::Client), Some(Role::Node(NodeId(8)))] {
        let mut caller = Caller::peer(node.address(), role).await;
        caller.say(FrameKind::Hello, 0, &hello).await;
        assert!(matches!(caller.goodbye().await, RequestError::Incompatible { .. }), "{role:?}");
    }
    let mut caller = Caller::peer(node.address(), Some(Role::Node(STRANGER))).await;
    caller.say(FrameKind::Hello, 0, &hello).await;
    let welcome: PeerHello = caller.hear(FrameKind::Welcome).await;
    assert_eq!(welcome.member.node, node.server.facts().node);
}

#[tokio::test]
async fn only_a_nodes_own_certificate_opens_the_door_of_gossip() {
    let node = Lone::start().await;
    let hello = peer_hello(node.cluster(), STRANGER);
    for role in [None, Some(Role::Client), Some(Role::Node(NodeId(8)))] {
        let mut caller = Caller::gossip(node.address(), role).await;
        caller.datagram(b"before any hello");
        caller.say(FrameKind::Hello, 0, &hello).await;
        assert!(matches!(caller.goodbye().await, RequestError::Incompatible { .. }), "{role:?}");
    }
    node.goes_on().await;
}

/// What a node says that holds the secret and is broken.
#[tokio::test]
async fn garbage_for_gossip_changes_nothing() {
    let node = Lone::start().await;
    let mut caller = Caller::gossip(node.address(), Some(Role::Node(STRANGER))).await;
    caller.say(FrameKind::Hello, 0, &peer_hello(node.cluster(), STRANGER)).await;
    let welcome: PeerHello = caller.hear(FrameKind::Welcome).await;
    assert_eq!(welcome.member.node, node.server.facts().node);
    for n in 0..1_000_usize {
        let garbage = Bytes::from(vec![u8::try_from(n % 256).unwrap(); n % 900]);
        caller.datagram(&garbage);
        caller.say(FrameKind::Gossip, 0, &garbage).await;
    }
    // Frames are taken in order: when this one is answered, all the others were taken.
    caller.ask(1, ClientRequest::Status).await;
    assert!(matches!(caller.goodbye().await, RequestError::BadRequest { .. }));
    let status = node.server.status().await.unwrap();
    assert_eq!(status.members.len(), 1, "{status:?}");
    node.goes_on().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_name_is_refused() {
    let node = Lone::start().await;
    let mut caller = Caller::peer(node.address(), Some(Role::Node(STRANGER))).await;
    caller.say(FrameKind::Hello, 0, &peer_hello(ClusterId(1), STRANGER)).await;
    assert!(matches!(caller.goodbye().await, RequestError::Incompatible { .. }));
}

#[tokio::test]
async fn no_protocol_version_in_common_is_said_so() {
    let node = Lone::start().await;
    let mut caller = Caller::stranger(node.address()).await;
    caller.say(FrameKind::Hello, 0, &client_hello((900, 901))).await;
    assert!(matches!(caller.goodbye().await, RequestError::Incompatible { .. }));
}

#[tokio::test]
async fn broken_frames_end_their_connection_with_a_reason_and_no_other() {
    let node = Lone::start().await;
    let mut bystander = Caller::client(node.address()).await;

    let mut caller = Caller::client(node.address()).await;
    caller.say_bytes(&(CLIENT_FRAME_BYTES_MAX + 1).to_be_bytes()).await;
    let limit = RequestError::Limit {
        limit: "frame".to_owned(),
        actual: u64::from(CLIENT_FRAME_BYTES_MAX) + 1,
        max: u64::from(CLIENT_FRAME_BYTES_MAX),
    };
    assert_eq!(caller.goodbye().await, limit);

    let too_short = [0, 0, 0, 8];
    let unknown_kind = [0, 0, 0, 9, 200, 0, 0, 0, 0, 0, 0, 0, 0];
    for bytes in [&too_short[..], &unknown_kind[..]] {
        let mut caller = Caller::client(node.address()).await;
        caller.say_bytes(bytes).await;
        assert!(matches!(caller.goodbye().await, RequestError::BadRequest { .. }), "{bytes:?}");
    }
    bystander.status().await;
    node.goes_on().await;
}

#[tokio::test]
async fn before_its_hello_a_stranger_may_say_little_and_nothing_else() {
    let node = Lone::start().await;
    let mut caller = Caller::stranger(node.address()).await;
    caller.say_bytes(&(1_u32 << 20).to_be_bytes()).await;
    assert!(matches!(caller.goodbye().await, RequestError::Limit { .. }));

    let mut caller = Caller::stranger(node.address()).await;
    caller.ask(1, ClientRequest::Status).await;
    assert!(matches!(caller.goodbye().await, RequestError::BadRequest { .. }));

    let mut caller = Caller::stranger(node.address()).await;
    caller.say_body(FrameKind::Hello, 0, b"\x93\x01").await;
    assert!(matches!(caller.goodbye().await, RequestError::BadRequest { .. }));
}

#[tokio::test]
async fn a_malformed_body_costs_only_its_own_request() {
    let node = Lone::start().await;
    let mut caller = Caller::client(node.address()).await;
    caller.say_body(FrameKind::Request, 5, &[0xff; 32]).await;
    let (request, result) = caller.answer().await;
    assert_eq!(request, 5);
    assert!(matches!(result, Err(RequestError::BadRequest { .. })));
    caller.status().await;

    let mut peer = Caller::peer(node.address(), Some(Role::Node(STRANGER))).await;
    peer.say(FrameKind::Hello, 0, &peer_hello(node.cluster(), STRANGER)).await;
    let _: PeerHello = peer.hear(FrameKind::Welcome).await;
    peer.say_body(FrameKind::Request, 6, &[0xff; 32]).await;
    assert_eq!(peer.hear::<PeerResponse>(FrameKind::Response).await, PeerResponse::Refused(Refusal::Malformed));
}

#[tokio::test]
async fn many_requests_on_one_stream_are_each_answered_under_their_own_id() {
    let node = Lone::start().await;
    let mut caller = Caller::client(node.address()).await;
    for request in 0..500 {
        caller.ask(request, ClientRequest::Status).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let (request, result) = caller.answer().await;
        assert!(matches!(result, Ok(ClientResponse::Status(_))));
        assert!(answered.insert(request));
    }
}

#[tokio::test]
async fn beyond_its_limits_a_connection_is_told_to_wait_and_may_go_on() {
    let node = Lone::start_with(LinkLimits { in_flight_count_max: 2, ..LinkLimits::default() }).await;
    let mut caller = Caller::client(node.address()).await;
    caller.ask_at_once(&[1, 2, 3]).await;
    let mut answers = [caller.answer().await, caller.answer().await, caller.answer().await];
    answers.sort_by_key(|(request, _)| *request);
    let [(1, Ok(_)), (2, Ok(_)), (3, Err(RequestError::Overloaded { .. }))] = answers else { panic!("{answers:?}") };
    caller.status().await;
}

#[tokio::test]
async fn a_request_id_under_way_cannot_be_used_again() {
    let node = Lone::start().await;
    let mut caller = Caller::client(node.address()).await;
    caller.ask_at_once(&[1, 1]).await;
    assert!(matches!(caller.goodbye().await, RequestError::BadRequest { .. }));
}

#[tokio::test]
async fn a_node_that_stops_says_goodbye() {
    let node = Lone::start().await;
    let mut caller = Caller::client(node.address()).await;
    let Lone { server, .. } = node;
    let (goodbye, stopped) = tokio::join!(caller.goodbye(), server.shutdown());
    assert!(matches!(goodbye, RequestError::NotServing { .. }));
    stopped.unwrap();
}
