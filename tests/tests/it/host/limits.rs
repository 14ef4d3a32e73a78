//! What a node does at its limits, seen by those who reach them and by those beside them.

use shoal_node::host::config::ServerConfig;
use shoal_node::host::limits::{LinkLimits, LoadLimits, ServerLimits};
use shoal_node::host::{RunningServer, Server};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{ClientCall, ClientRequest, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{CLOSE_SLOW_READER, FrameKind};
use shoal_protocol::id::Class;
use shoal_protocol::object::Conflict;

use super::caller::{Caller, Lone, config};

#[tokio::test]
async fn a_client_that_stops_reading_is_ended_by_name_and_holds_up_nobody() {
    let outbox_bytes_max = 256 << 10;
    let node = Lone::start_with(LinkLimits { outbox_bytes_max, ..LinkLimits::default() }).await;
    let mut bystander = Caller::client(node.address()).await;
    let mut caller = Caller::client(node.address()).await;
    // It asks and asks, and reads nothing: neither the transport nor the node may keep all the answers.
    let close = loop {
        match caller.try_ask(ClientRequest::Status).await {
            Ok(()) => assert_eq!(bystander.status().await.node, node.server.facts().node),
            Err(close) => break close,
        }
    };
    let reason = String::from_utf8(close.reason.to_vec()).unwrap();
    assert_eq!(close.error_code, quinn::VarInt::from_u32(CLOSE_SLOW_READER), "{reason}");
    // What waited when it ended: the bound, and the one answer that went beyond.
    let waiting: usize = reason.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((outbox_bytes_max..outbox_bytes_max + (64 << 10)).contains(&waiting), "{reason}");
    bystander.status().await;
    node.goes_on().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_what_waits_is_ended_though_it_is_below_the_bound() {
    let node = Lone::start_with(LinkLimits { stalled_ms_max: 50, ..LinkLimits::default() }).await;
    let mut caller = Caller::client(node.address()).await;
    let close = loop {
        if let Err(close) = caller.try_ask(ClientRequest::Status).await {
            break close;
        }
    };
    let reason = String::from_utf8(close.reason.to_vec()).unwrap();
    assert_eq!(close.error_code, quinn::VarInt::from_u32(CLOSE_SLOW_READER), "{reason}");
    assert!(reason.contains("nothing for 50 ms"), "{reason}");
    node.goes_on().await;
}

/// A node that holds on to each change of a keyspace, because nobody is left to agree with it.
async fn alone_of_three(limits: ServerLimits) -> (RunningServer, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let of = |name: &str, seeds: Vec<String>| ServerConfig {
        expect: 3,
        found_alone: false,
        seeds,
        limits,
        ..config(&data.path().join(name), name)
    };
    let node = Server::start(of("a", Vec::new())).await.unwrap();
    let seed = vec![node.facts().local_address.to_string()];
    let others = [Server::start(of("b", seed.clone())).await.unwrap(), Server::start(of("c", seed)).await.unwrap()];
    assert!(node.serves().await);
    for other in others {
        assert!(other.serves().await);
        other.kill().await;
    }
    (node, data)
}

fn creation() -> ClientRequest {
    let class = Class { n: 3, r: 0, w: 0 };
    let (layout, conflict) = (KeyspaceLayout::Key, Conflict::Lww);
    let spec = KeyspaceSpec { class, layout, conflict, quorum: QuorumMode::Strict, ttl_s: None };
    ClientRequest::CreateKeyspace { name: KeyspaceName::new("k").unwrap(), spec }
}

#[tokio::test]
async fn beyond_the_bytes_of_a_node_clients_are_told_to_wait_and_may_still_ask_how_it_is() {
    let load = LoadLimits { request_bytes_max: 100, ..LoadLimits::default() };
    let (node, _data) = alone_of_three(ServerLimits { load, ..ServerLimits::default() }).await;
    let address = node.facts().local_address;
    let (mut one, mut other) = (Caller::client(address).await, Caller::client(address).await);
    // Nothing is under way: a single request is taken whatever its size.
    let large = ClientCall { deadline_ms: 60_000, request: ClientRequest::Batch(vec![creation(); 40]) };
    one.say(FrameKind::Request, 1, &large).await;
    assert!(matches!(one.answer().await, (1, Err(RequestError::BadRequest { .. }))));
    // This one stays under way, and takes room from all others.
    one.say(FrameKind::Request, 2, &ClientCall { deadline_ms: 60_000, request: creation() }).await;
    one.status().await;
    other.say(FrameKind::Request, 1, &large).await;
    assert!(matches!(other.answer().await, (1, Err(RequestError::Overloaded { retry_after_ms: 1.. }))));
    assert_eq!(other.status().await.node, node.facts().node);
    // Its client goes, and with it what it held.
    drop(one);
    loop {
        other.say(FrameKind::Request, 2, &large).await;
        match other.answer().await {
            (2, Err(RequestError::Overloaded { .. })) => {}
            (2, Err(RequestError::BadRequest { .. })) => break,
            answer => panic!("{answer:?}"),
        }
    }
}

#[tokio::test]
async fn beyond_the_requests_of_a_node_clients_are_told_to_wait() {
    let mut limits = ServerLimits::default();
    limits.node.requests_max = 1;
    let (node, _data) = alone_of_three(limits).await;
    let address = node.facts().local_address;
    let (mut one, mut other) = (Caller::client(address).await, Caller::client(address).await);
    one.say(FrameKind::Request, 1, &ClientCall { deadline_ms: 60_000, request: creation() }).await;
    one.status().await;
    other.ask(1, ClientRequest::ListKeyspaces).await;
    let answer = other.answer().await;
    assert!(matches!(answer, (1, Err(RequestError::Overloaded { .. }))), "{answer:?}");
    assert!(matches!(other.status().await, status if status.serving.is_ok()));
}
