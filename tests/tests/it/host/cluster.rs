//! Three nodes find each other, lose each other, and find each other again.

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
