//! Three nodes find each other, lose each other, and find each other again.

use shoal_client::{Class, Conflict, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_node::testing::Cluster;

#[tokio::test]
async fn three_nodes_form_a_cluster_and_survive_the_loss_of_one() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.kill(1).await;
    cluster.settled().await.unwrap();
    cluster.restart(1).await.unwrap();
    cluster.settled().await.unwrap();
}

#[tokio::test]
async fn nodes_that_are_cut_off_do_not_reach_each_other_until_healed() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.cut(0, 1).await;
    // Settled means here: 0 and 1 believe each other down, and 2 reaches both.
    cluster.settled().await.unwrap();
    cluster.heal(0, 1).await;
    cluster.settled().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_one_serves() {
    Cluster::start(1).await.unwrap();
}

/// The example of the documentation: siblings on purpose.
#[tokio::test]
async fn two_clients_that_write_without_seeing_each_other_make_siblings() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let (ann, ben) = (cluster.client().await.unwrap(), cluster.client().await.unwrap());
    ann.create_keyspace("app", SIBLINGS).await.unwrap();

    cluster.cut(0, 1).await;
    let topic = ann.keyspace("app").await.unwrap().collection("chat").unwrap().register("topic").unwrap();
    let same_topic = ben.keyspace("app").await.unwrap().collection("chat").unwrap().register("topic").unwrap();
    let (seen_by_ann, seen_by_ben) = (topic.read().await.unwrap(), same_topic.read().await.unwrap());
    seen_by_ann.replace("fish").await.unwrap();
    seen_by_ben.replace("bird").await.unwrap();
    cluster.heal(0, 1).await;

    let entry = topic.read().await.unwrap();
    let mut siblings: Vec<String> = entry.siblings().unwrap();
    siblings.sort();
    assert_eq!(siblings, ["bird", "fish"]);
    entry.replace("both").await.unwrap();
    assert_eq!(same_topic.read().await.unwrap().siblings::<String>().unwrap(), ["both"]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_every_node_was_killed_and_restarted() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client().await.unwrap();
    client.create_keyspace("app", SIBLINGS).await.unwrap();
    let count = client.keyspace("app").await.unwrap().collection("c").unwrap().counter("hits").unwrap();
    for _ in 0..20 {
        count.add(1).await.unwrap();
    }
    for index in 0..3 {
        cluster.kill(index).await;
    }
    for index in 0..3 {
        cluster.restart(index).await.unwrap();
    }
    cluster.settled().await.unwrap();
    let client = cluster.client().await.unwrap();
    let count = client.keyspace("app").await.unwrap().collection("c").unwrap().counter("hits").unwrap();
    assert_eq!(count.read().await.unwrap(), 20);
}

const SIBLINGS: KeyspaceSpec = KeyspaceSpec {
    class: Class { n: 3, r: 0, w: 0 },
    layout: KeyspaceLayout::Collection,
    conflict: Conflict::Siblings,
    quorum: QuorumMode::Strict,
    ttl_s: None,
};
