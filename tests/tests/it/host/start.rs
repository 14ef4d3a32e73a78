//! What keeps a node from starting, and that nothing keeps it from starting again.

use std::fs;

use shoal_client::{Class, Client, Conflict, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_node::host::config::{ConfigError, ServerConfig};
use shoal_node::host::disk::DirectoryDisk;
use shoal_node::host::secret::ClusterSecrets;
use shoal_node::host::{Facts, RunningServer, Server, StartError};
use shoal_node::storage::engine::OpenError;
use shoal_node::storage::engine::inspect::StoppedStore;
use shoal_protocol::id::ClusterId;

use super::caller::{Caller, config, secret, serving};

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(config(data.path(), "a")).await.unwrap();
    let mut second = config(other.path(), "b");
    second.listen = server.facts().local_address;
    match Server::start(second).await {
        Err(StartError::PortInUse { address }) => assert_eq!(address, server.facts().local_address),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_data_directory_in_use_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = serving(config(data.path(), "a")).await;
    let error = Server::start(config(data.path(), "a")).await.unwrap_err();
    assert!(matches!(error, StartError::Store { error: OpenError::Locked, .. }), "{error}");
    Caller::client(server.facts().local_address).await.status().await;
}

#[tokio::test]
async fn the_data_of_another_node_or_cluster_is_refused_untouched() {
    let data = tempfile::tempdir().unwrap();
    Server::start(config(data.path(), "a")).await.unwrap().shutdown().await.unwrap();

    let error = Server::start(config(data.path(), "b")).await.unwrap_err();
    assert!(matches!(error, StartError::Store { error: OpenError::OtherNode { .. }, .. }), "{error}");
    let mut foreign = config(data.path(), "a");
    foreign.secrets = Some(ClusterSecrets::one(secret(2)));
    let error = Server::start(foreign).await.unwrap_err();
    // A node's id follows from its cluster's, so the same name is another node there.
    assert!(matches!(error, StartError::Store { error: OpenError::OtherNode { .. }, .. }), "{error}");

    Server::start(config(data.path(), "a")).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Server::start(config(file.path(), "a")).await.unwrap_err();
    assert!(matches!(error, StartError::Store { error: OpenError::Disk(_), .. }), "{error}");
}

#[tokio::test]
async fn a_configuration_is_checked_before_anything_is_touched() {
    let data = tempfile::tempdir().unwrap();
    let absent = data.path().join("absent");
    let mut open = config(&absent, "a");
    (open.secrets, open.listen) = (None, "0.0.0.0:0".parse().unwrap());
    let error = Server::start(open).await.unwrap_err();
    assert!(matches!(error, StartError::Config(ConfigError::NoSecret { .. })), "{error}");
    assert!(!absent.exists());
}

#[tokio::test]
async fn a_killed_node_leaves_port_and_data_free() {
    let data = tempfile::tempdir().unwrap();
    let mut again = config(data.path(), "a");
    for _ in 0..3 {
        let server = serving(again.clone()).await;
        again.listen = server.facts().local_address;
        Caller::client(again.listen).await.status().await;
        server.kill().await;
    }
}

#[tokio::test]
async fn nodes_of_a_half_rotated_secret_trust_each_other() {
    let (data_a, data_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let both = |newest: u8, oldest: u8| {
        let line = |byte: u8| format!("{byte:02x}").repeat(32);
        ClusterSecrets::parse(&format!("{}\n{}", line(newest), line(oldest))).ok()
    };
    let mut a = config(data_a.path(), "a");
    (a.expect, a.found_alone, a.cluster_id, a.secrets) = (2, false, Some(ClusterId(5)), both(1, 2));
    let mut b = ServerConfig { data_dir: data_b.path().to_owned(), name: "b".to_owned(), ..a.clone() };
    b.secrets = both(2, 1);
    let a = Server::start(a).await.unwrap();
    b.seeds = vec![a.facts().local_address.to_string()];
    let b = Server::start(b).await.unwrap();
    assert_ne!(a.facts().ca_pin, b.facts().ca_pin);
    // They form a cluster, so each has accepted the other's certificate.
    assert!(a.serves().await && b.serves().await);
}

#[tokio::test]
async fn one_common_seed_is_enough_for_all_to_find_each_other() {
    let data: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let node = |index: usize, seeds: Vec<String>| ServerConfig {
        expect: 4,
        found_alone: false,
        seeds,
        ..config(data[index].path(), &format!("node{index}"))
    };
    let seed = Server::start(node(0, Vec::new())).await.unwrap();
    let address = seed.facts().local_address.to_string();
    let mut servers = vec![seed];
    for index in 1..4 {
        servers.push(Server::start(node(index, vec![address.clone()])).await.unwrap());
    }
    for server in &servers {
        assert!(server.serves().await);
    }
}

#[tokio::test]
async fn a_node_of_three_stores_serves_finds_all_again_and_refuses_another_number() {
    let data = tempfile::tempdir().unwrap();
    let first = ServerConfig { stores: Some(3), ..config(data.path(), "a") };
    let server = serving(first.clone()).await;
    let client = client_of(&server).await;
    client.create_keyspace("app", BY_KEY).await.unwrap();
    let app = client.keyspace("app").await.unwrap();
    // Keys spread over all partitions, so over all stores.
    for n in 0..30 {
        app.counter(format!("key-{n}")).unwrap().add(n).await.unwrap();
    }
    server.shutdown().await.unwrap();
    for store in ["", "cell-1", "cell-2"] {
        let disk = DirectoryDisk::open(data.path().join(store)).unwrap();
        let records = StoppedStore::open(&disk).unwrap().inspect().unwrap().log_records_count;
        assert!(records > 0 && records < 30, "{records} of 30 records in {store:?}");
    }

    for stores in [1, 2, 4] {
        let error = Server::start(ServerConfig { stores: Some(stores), ..first.clone() }).await.unwrap_err();
        assert!(matches!(error, StartError::Store { error: OpenError::OtherCells { .. }, .. }), "{error}");
    }
    let server = serving(ServerConfig { stores: None, ..first.clone() }).await;
    let app = client_of(&server).await.keyspace("app").await.unwrap();
    for n in 0..30 {
        assert_eq!(app.counter(format!("key-{n}")).unwrap().read().await.unwrap(), n);
    }
    server.kill().await;

    fs::remove_dir_all(data.path().join("cell-2")).unwrap();
    let error = Server::start(first).await.unwrap_err();
    assert!(matches!(error, StartError::Store { error: OpenError::Damaged { .. }, .. }), "{error}");
}

async fn client_of(server: &RunningServer) -> Client {
    let Facts { local_address, ca_pin, .. } = server.facts();
    Client::connect(&format!("shoal://{local_address}/?ca={ca_pin}")).await.unwrap()
}

const BY_KEY: KeyspaceSpec = KeyspaceSpec {
    class: Class { n: 1, r: 0, w: 0 },
    layout: KeyspaceLayout::Key,
    conflict: Conflict::Siblings,
    quorum: QuorumMode::Strict,
    ttl_s: None,
};
