//! What keeps a node from starting, and that nothing keeps it from starting again.

use shoal_node::host::config::ConfigError;
use shoal_node::host::secret::ClusterSecrets;
use shoal_node::host::{Server, StartError};
use shoal_node::storage::engine::OpenError;

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
    assert!(matches!(error, StartError::DataDir { .. }), "{error}");
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
