//! What nodes believe of each other, and what they find out about their data directories by it.

use std::fs;
use std::path::Path;

use shoal_client::{Class, Client, Conflict, KeyspaceLayout, KeyspaceSpec, Liveness, MemberView, QuorumMode};
use shoal_node::host::config::ServerConfig;
use shoal_node::host::secret::ClusterSecrets;
use shoal_node::host::{Facts, RunningServer, Server};
use shoal_node::testing::Cluster;
use shoal_protocol::client::Status;
use shoal_protocol::id::NodeId;

use super::caller::{config, secret};
use super::meeting::{free_address, status_when, warns};

/// What `viewer` believes of `seen`: whether it would ask it.
fn reaches(views: &[MemberView], viewer: NodeId, seen: NodeId) -> Option<bool> {
    let members = views.iter().find(|view| view.node == viewer)?.members.as_ref()?;
    Some(members.iter().find(|member| member.endpoint.node == seen)?.is_reachable())
}

#[tokio::test]
async fn a_cut_is_seen_from_both_of_its_ends_and_from_nowhere_else() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.cut(0, 1).await;
    cluster.settled().await.unwrap();
    let views = cluster.client_of(2).await.unwrap().member_views().await.unwrap();
    let [a, b, c] = [0, 1, 2].map(|index| cluster.node(index));
    for (viewer, seen, is_reachable) in
        [(a, b, false), (b, a, false), (a, c, true), (c, a, true), (b, c, true), (c, b, true)]
    {
        assert_eq!(reaches(&views, viewer, seen), Some(is_reachable), "{viewer} of {seen}: {views:?}");
    }
    // Asked at the other end, the node that cannot be reached from there is listed without a view.
    let views = cluster.client_of(0).await.unwrap().member_views().await.unwrap();
    assert_eq!(views.len(), 3);
    assert!(views.iter().all(|view| view.members.is_some() == (view.node != b)), "{views:?}");
}

#[tokio::test]
async fn who_stops_in_good_order_is_known_to_have_left_and_comes_back() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let left = cluster.node(1);
    cluster.stop(1).await.unwrap();
    let other = cluster.running(0).unwrap();
    let is_gone = |status: &Status| {
        let member = status.members.iter().find(|member| member.endpoint.node == left).unwrap();
        member.liveness == Liveness::Left
    };
    status_when(other, is_gone).await;
    cluster.restart(1).await.unwrap();
    cluster.settled().await.unwrap();
}

/// Two nodes, so that the lease of each is confirmed by the other or not at all.
struct Two {
    a: RunningServer,
    b: Option<RunningServer>,
    config_of_b: ServerConfig,
    _data: tempfile::TempDir,
}

impl Two {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (at_a, at_b) = (free_address(), free_address());
        let node = |name: &str, listen| ServerConfig {
            listen,
            seeds: vec![at_a.to_string()],
            expect: 2,
            found_alone: false,
            secrets: Some(ClusterSecrets::one(secret(1))),
            ..config(&data.path().join(name), name)
        };
        let config_of_b = node("b", at_b);
        let a = Server::start(node("a", at_a)).await.unwrap();
        let b = Server::start(config_of_b.clone()).await.unwrap();
        assert!(a.serves().await && b.serves().await);
        Self { a, b: Some(b), config_of_b, _data: data }
    }

    /// An operation that a node itself must mint. It is acknowledged by both, so both minted it or took it over.
    async fn mint(&self, by: &RunningServer) {
        let Facts { local_address, ca_pin, .. } = by.facts();
        let builder = Client::builder().sessionless();
        let client = builder.connect(&format!("shoal://{local_address}/?ca={ca_pin}")).await.unwrap();
        if client.keyspace("app").await.is_err() {
            client.create_keyspace("app", ON_BOTH).await.unwrap();
        }
        client.keyspace("app").await.unwrap().counter("hits").unwrap().add(1).await.unwrap();
    }

    async fn kill_b(&mut self) {
        self.b.take().unwrap().kill().await;
    }

    async fn start_b(&mut self) -> &RunningServer {
        let b = Server::start(self.config_of_b.clone()).await.unwrap();
        assert!(b.serves().await);
        self.b.insert(b)
    }
}

#[tokio::test]
async fn a_node_that_comes_back_with_its_own_data_mints_again() {
    let mut two = Two::start().await;
    two.mint(two.b.as_ref().unwrap()).await;
    let before = two.b.as_ref().unwrap().status().await.unwrap().incarnation;
    for _ in 0..3 {
        two.kill_b().await;
        two.start_b().await;
        two.mint(two.b.as_ref().unwrap()).await;
    }
    let status = two.b.as_ref().unwrap().status().await.unwrap();
    assert_eq!(status.incarnation, before);
    assert!(!status.members[0].catching_up);
}

#[tokio::test]
async fn a_restored_data_directory_is_found_out_and_goes_on_as_another_incarnation() {
    let mut two = Two::start().await;
    two.mint(two.b.as_ref().unwrap()).await;
    two.kill_b().await;
    let data = two.config_of_b.data_dir.clone();
    let backup = tempfile::tempdir().unwrap();
    copy(&data, backup.path());

    // It mints on, so the other knows of more than the backup does.
    let before = two.start_b().await.status().await.unwrap().incarnation;
    two.mint(two.b.as_ref().unwrap()).await;
    two.kill_b().await;
    fs::remove_dir_all(&data).unwrap();
    copy(backup.path(), &data);

    let b = two.start_b().await;
    let is_found_out = |status: &Status| status.members[0].catching_up && status.incarnation != before;
    let status = status_when(b, is_found_out).await;
    // And the other end knows.
    let node = status.node;
    let knows =
        |status: &Status| status.members.iter().any(|member| member.endpoint.node == node && member.catching_up);
    status_when(&two.a, knows).await;
}

/// Both run under one node id and take each other's connections away; still the copy is found out before it mints.
#[tokio::test]
async fn a_second_process_on_a_copy_of_the_data_is_found_out_and_reported() {
    let mut two = Two::start().await;
    two.kill_b().await;
    let copied = tempfile::tempdir().unwrap();
    copy(&two.config_of_b.data_dir, copied.path());
    let before = two.start_b().await.status().await.unwrap().incarnation;

    let config = ServerConfig { data_dir: copied.path().to_owned(), listen: free_address(), ..two.config_of_b.clone() };
    let double = Server::start(config).await.unwrap();
    let is_found_out = |status: &Status| status.members[0].catching_up && status.incarnation != before;
    status_when(&double, is_found_out).await;
    let b = two.b.as_ref().unwrap();
    status_when(b, |status| warns(status, "another process runs under this node's id")).await;
    assert_eq!(b.status().await.unwrap().incarnation, before);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const ON_BOTH: KeyspaceSpec = KeyspaceSpec {
    class: Class { n: 2, r: 0, w: 0 },
    layout: KeyspaceLayout::Key,
    conflict: Conflict::Siblings,
    quorum: QuorumMode::Strict,
    ttl_s: None,
};
