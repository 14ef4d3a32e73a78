//! Nodes that look for each other: across secrets, before the other is there, after it was somebody else, and when the
//! seed is gone.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use shoal_client::Client;
use shoal_node::host::config::ServerConfig;
use shoal_node::host::secret::ClusterSecrets;
use shoal_node::host::{RunningServer, Server};
use shoal_node::testing::Cluster;
use shoal_protocol::client::Status;

use super::caller::{config, secret};

const ANOTHER_SECRET: &str = "its certificate is not from this cluster's secret";

/// A loopback address that was free a moment ago.
pub(super) fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One of two nodes that are to form a cluster.
fn one_of_two(data_dir: &Path, name: &str, (listen, seed): (SocketAddr, SocketAddr), secret_byte: u8) -> ServerConfig {
    ServerConfig {
        listen,
        seeds: vec![seed.to_string()],
        expect: 2,
        found_alone: false,
        secrets: Some(ClusterSecrets::one(secret(secret_byte))),
        ..config(data_dir, name)
    }
}

/// The status once it is as wanted. A node that never gets there is ended by the test runner.
pub(super) async fn status_when(server: &RunningServer, is_so: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = server.status().await.unwrap();
        if is_so(&status) {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) fn warns(status: &Status, of: &str) -> bool {
    status.warnings.iter().any(|warning| warning.contains(of))
}

#[tokio::test]
async fn nodes_of_different_secrets_never_join_and_say_why() {
    let data = tempfile::tempdir().unwrap();
    let (at_a, at_b) = (free_address(), free_address());
    let a = Server::start(one_of_two(&data.path().join("a"), "a", (at_a, at_b), 1)).await.unwrap();
    let b = Server::start(one_of_two(&data.path().join("b"), "b", (at_b, at_a), 2)).await.unwrap();
    for (server, other) in [(&a, at_b), (&b, at_a)] {
        let status = status_when(server, |status| warns(status, ANOTHER_SECRET)).await;
        assert!(warns(&status, &format!("seed {other}: ")), "{status:?}");
        assert_eq!(status.members.len(), 1, "it knows itself only");
        let why = status.serving.unwrap_err();
        assert!(why.contains("1 of 2 members") && why.contains(ANOTHER_SECRET), "{why}");
    }
    // Clients are told the same.
    let url = format!("shoal://{at_a}/?ca={}", a.facts().ca_pin);
    let error = Client::connect(&url).await.unwrap_err();
    assert_eq!(error.code(), "not_serving");
    assert!(error.to_string().contains(ANOTHER_SECRET), "{error}");
}

#[tokio::test]
async fn a_node_of_another_secret_does_not_join_a_cluster_that_serves() {
    let data = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(3).await.unwrap();
    let stranger = one_of_two(data.path(), "a", (free_address(), cluster.address(0)), 1);
    let stranger = Server::start(stranger).await.unwrap();
    status_when(&stranger, |status| warns(status, ANOTHER_SECRET)).await;
    for index in 0..3 {
        assert_eq!(cluster.running(index).unwrap().status().await.unwrap().members.len(), 3);
    }
}

#[tokio::test]
async fn a_node_of_the_same_secret_and_another_cluster_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let (at_a, at_b) = (free_address(), free_address());
    let a = one_of_two(&data.path().join("a"), "a", (at_a, at_b), 1);
    let b = one_of_two(&data.path().join("b"), "b", (at_b, at_a), 1);
    let a = Server::start(a).await.unwrap();
    let b = Server::start(ServerConfig { cluster: "another".to_owned(), ..b }).await.unwrap();
    for (server, other) in [(&a, &b), (&b, &a)] {
        let other = other.facts().cluster.to_string();
        let status = status_when(server, |status| warns(status, "incompatible")).await;
        assert!(warns(&status, &other) && status.members.len() == 1, "{status:?}");
    }
}

#[tokio::test]
async fn a_seed_that_starts_later_is_found() {
    let data = tempfile::tempdir().unwrap();
    let (at_a, at_b) = (free_address(), free_address());
    let a = Server::start(one_of_two(&data.path().join("a"), "a", (at_a, at_b), 1)).await.unwrap();
    status_when(&a, |status| warns(status, &format!("seed {at_b}: "))).await;
    // It has no seed but itself: the one who failed must come again.
    let b = Server::start(one_of_two(&data.path().join("b"), "b", (at_b, at_b), 1)).await.unwrap();
    assert!(a.serves().await && b.serves().await);
    status_when(&a, |status| !warns(status, "seed ")).await;
}

#[tokio::test]
async fn a_seed_that_first_shows_a_wrong_certificate_is_found_when_it_shows_the_right_one() {
    let data = tempfile::tempdir().unwrap();
    let (at_a, at_b) = (free_address(), free_address());
    let a = Server::start(one_of_two(&data.path().join("a"), "a", (at_a, at_b), 1)).await.unwrap();
    let wrong = Server::start(one_of_two(&data.path().join("wrong"), "b", (at_b, at_b), 2)).await.unwrap();
    status_when(&a, |status| warns(status, ANOTHER_SECRET)).await;
    wrong.kill().await;
    let b = Server::start(one_of_two(&data.path().join("b"), "b", (at_b, at_b), 1)).await.unwrap();
    assert!(a.serves().await && b.serves().await);
    status_when(&a, |status| !warns(status, "seed ")).await;
}

/// `Cluster` has one common seed, its first node.
#[tokio::test]
async fn any_two_nodes_find_each_other_again_in_any_order_without_the_third() {
    let mut cluster = Cluster::start(3).await.unwrap();
    for (first, second, third) in [(1, 2, 0), (2, 1, 0), (0, 2, 1), (2, 0, 1), (0, 1, 2), (1, 0, 2)] {
        for index in 0..3 {
            cluster.kill(index).await;
        }
        cluster.restart(first).await.unwrap();
        cluster.restart(second).await.unwrap();
        cluster.settled().await.unwrap();
        cluster.restart(third).await.unwrap();
        cluster.settled().await.unwrap();
    }
}

#[tokio::test]
async fn weights_reach_the_first_layout() {
    let data = tempfile::tempdir().unwrap();
    let (at_a, at_b) = (free_address(), free_address());
    let a = one_of_two(&data.path().join("a"), "a", (at_a, at_a), 1);
    let b = one_of_two(&data.path().join("b"), "b", (at_b, at_a), 1);
    let a = Server::start(ServerConfig { weight: 30, ..a }).await.unwrap();
    let b_data = ServerConfig { weight: 70, ..b };
    let b = Server::start(b_data.clone()).await.unwrap();
    for server in [&a, &b] {
        assert!(server.serves().await);
        let status = status_when(server, |status| status.members.iter().all(|member| member.is_reachable())).await;
        let weights: Vec<_> =
            status.members.iter().map(|member| (&*member.endpoint.name, member.endpoint.weight)).collect();
        assert!(weights.contains(&("a", 30)) && weights.contains(&("b", 70)), "{weights:?}");
    }
    // The layout was formed with the weights of then: a setting that changes later does not change it.
    b.shutdown().await.unwrap();
    let b = Server::start(ServerConfig { weight: 1, ..b_data }).await.unwrap();
    let status = status_when(&b, |status| status.members.len() == 2).await;
    assert_eq!(status.members[0].endpoint.weight, 70);
}
