//! The native client against real nodes: every type through one node and back through another, and what stays true while
//! nodes die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use shoal_client::{
    BatchAnswer, Class, Client, Conflict, Element, Error, Keyspace, KeyspaceLayout, KeyspaceSpec, Operation,
    QuorumMode, View,
};
use shoal_node::testing::Cluster;

fn spec(layout: KeyspaceLayout, conflict: Conflict) -> KeyspaceSpec {
    let class = Class { n: 3, r: 0, w: 0 };
    KeyspaceSpec { class, layout, conflict, quorum: QuorumMode::Strict, ttl_s: None }
}

/// Three nodes with the keyspaces `app` (siblings, collections) and `cache` (lww, keys), and a client of all.
async fn start() -> (Cluster, Client) {
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client().await.unwrap();
    client.create_keyspace("app", spec(KeyspaceLayout::Collection, Conflict::Siblings)).await.unwrap();
    client.create_keyspace("cache", spec(KeyspaceLayout::Key, Conflict::Lww)).await.unwrap();
    (cluster, client)
}

async fn app(client: &Client) -> Keyspace {
    client.keyspace("app").await.unwrap()
}

#[tokio::test]
async fn every_type_written_through_one_node_reads_the_same_through_another() {
    let (cluster, _) = start().await;
    let (here, there) = (cluster.client_of(0).await.unwrap(), cluster.client_of(2).await.unwrap());
    let (ours, theirs) = (app(&here).await.collection("c").unwrap(), app(&there).await.collection("c").unwrap());

    ours.register("topic").unwrap().update(|_: Vec<String>| "fish".into()).await.unwrap();
    let topic = theirs.register("topic").unwrap();
    assert_eq!(topic.read().await.unwrap().value::<String>().unwrap().as_deref(), Some("fish"));
    topic.delete().await.unwrap();
    assert!(ours.register("topic").unwrap().read().await.unwrap().is_absent());

    ours.counter("hits").unwrap().add(5).await.unwrap();
    theirs.counter("hits").unwrap().reset().await.unwrap();
    theirs.counter("hits").unwrap().add(-2).await.unwrap();
    assert_eq!(ours.counter("hits").unwrap().read().await.unwrap(), -2);

    for element in ["a", "b"] {
        ours.set("tags").unwrap().add(element).await.unwrap();
    }
    theirs.set("tags").unwrap().remove("a").await.unwrap();
    assert_eq!(ours.set("tags").unwrap().read().await.unwrap(), [Element::Text("b".into())].into());
    theirs.set("tags").unwrap().clear().await.unwrap();
    assert_eq!(ours.set("tags").unwrap().read().await.unwrap(), BTreeSet::new());

    ours.flag("on").unwrap().enable().await.unwrap();
    assert!(theirs.flag("on").unwrap().read().await.unwrap());
    theirs.flag("on").unwrap().disable().await.unwrap();
    assert!(!ours.flag("on").unwrap().read().await.unwrap());

    let (map, same_map) = (ours.map("user").unwrap(), theirs.map("user").unwrap());
    map.register("name").update(|_: Vec<String>| "Ada".into()).await.unwrap();
    map.map("stats").counter("visits").add(3).await.unwrap();
    same_map.map("stats").counter("visits").add(4).await.unwrap();
    assert_eq!(map.map("stats").counter("visits").read().await.unwrap(), 7);
    same_map.remove("stats").await.unwrap();
    assert_eq!(map.read().await.unwrap().into_keys().collect::<Vec<_>>(), ["name"]);
    assert_eq!(ours.set("user").unwrap().add("x").await.unwrap_err().code(), "wrong_type");
}

#[tokio::test]
async fn a_counter_is_exact_while_nodes_are_killed_and_return() {
    let (mut cluster, client) = start().await;
    let hits = app(&client).await.collection("c").unwrap().counter("hits").unwrap();
    let mut added = 0;
    for round in 0..6 {
        let killed = round % 3;
        let (results, ()) = tokio::join!(join_all((0..20).map(|_| hits.add(1))), cluster.kill(killed));
        added += results.len();
        for error in results.into_iter().filter_map(Result::err) {
            let operation = error.operation().unwrap_or_else(|| panic!("two of three nodes serve: {error}"));
            client.repeat(operation).await.unwrap();
        }
        cluster.restart(killed).await.unwrap();
        cluster.settled().await.unwrap();
    }
    assert_eq!(usize::try_from(hits.read().await.unwrap()).unwrap(), added);
    let other = cluster.client().await.unwrap();
    let same = app(&other).await.collection("c").unwrap().counter("hits").unwrap();
    assert_eq!(usize::try_from(same.r(3).read().await.unwrap()).unwrap(), added);
}

#[tokio::test]
async fn without_a_quorum_a_write_is_never_called_done_and_counts_once_when_repeated() {
    let (mut cluster, client) = start().await;
    let hits = app(&client).await.collection("c").unwrap().counter("hits").unwrap();
    hits.add(1).await.unwrap();
    cluster.kill(1).await;
    cluster.kill(2).await;
    let error = hits.deadline(Duration::from_millis(700)).add(10).await.unwrap_err();
    assert!(["unknown", "unavailable"].contains(&error.code()), "{error}");
    cluster.restart(1).await.unwrap();
    cluster.settled().await.unwrap();
    let expected = match error.operation() {
        Some(operation) => {
            client.repeat(operation).await.unwrap();
            client.repeat(operation).await.unwrap();
            11
        }
        None => 1,
    };
    assert_eq!(hits.read().await.unwrap(), expected);
}

#[tokio::test]
async fn scans_see_every_row_once_in_order_and_over_the_whole_keyspace() {
    let (_cluster, client) = start().await;
    let app = app(&client).await;
    let users = app.collection("users").unwrap();
    let key = |n: u32| format!("u{n:03}");
    let write = |n: u32| {
        let user = users.register(key(n)).unwrap();
        async move { user.add_sibling(&n).await }
    };
    assert!(join_all((0..120).map(write)).await.iter().all(Result::is_ok));
    app.collection("other").unwrap().flag("x").unwrap().enable().await.unwrap();

    let rows: Vec<_> = users.scan().page_rows(50).rows().map(Result::unwrap).collect().await;
    let read: Vec<(u32, String)> =
        rows.iter().map(|row| (row.value().unwrap().unwrap(), String::from_utf8(row.key.to_vec()).unwrap())).collect();
    assert_eq!(read, (0..120).map(|n| (n, key(n))).collect::<Vec<_>>());

    let first = users.scan().prefix("u1").reverse().limit(3).page().await.unwrap();
    assert_eq!(first.rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), ["u119", "u118", "u117"]);
    let rest = users.scan().prefix("u1").reverse().from_cursor(first.cursor.unwrap()).count().await.unwrap();
    assert_eq!((rest.rows, rest.complete), (17, true));

    let all: Vec<_> = app.scan().rows().map(Result::unwrap).collect().await;
    assert_eq!(all.len(), 121);
    assert!(all.iter().any(|row| row.collection == "other" && row.view == Some(View::Flag(true))));
}

#[tokio::test]
async fn a_batch_has_a_verdict_for_each_of_its_operations() {
    let (_cluster, client) = start().await;
    let users = app(&client).await.collection("users").unwrap();
    let (hits, name) = (users.key("hits").unwrap(), users.key("name").unwrap());
    name.register().add_sibling("Ada").await.unwrap();
    let mut batch = client.batch();
    batch.operate(&hits, Operation::CounterAdd { by: 1 });
    batch.operate(&hits, Operation::CounterAdd { by: 2 });
    batch.operate(&name, Operation::Enable);
    batch.operate(&name, Operation::Delete);
    batch.read(&name);
    let verdicts = batch.send().await.unwrap();
    assert!(matches!(&verdicts[..2], [Ok(BatchAnswer::Written(_)), Ok(BatchAnswer::Written(_))]), "{verdicts:?}");
    assert_eq!(verdicts[2].as_ref().unwrap_err().code(), "wrong_type");
    assert!(matches!(&verdicts[3], Ok(BatchAnswer::Written(_))));
    assert!(matches!(&verdicts[4], Ok(BatchAnswer::Read(read)) if !read.is_absent()), "read before it was deleted");
    assert_eq!(hits.counter().read().await.unwrap(), 3);
    assert!(name.read().await.unwrap().is_absent());
}

#[tokio::test]
async fn a_later_lww_write_wins_whoever_makes_it_and_sessionless_writes_arrive() {
    let (cluster, client) = start().await;
    let page = client.keyspace("cache").await.unwrap().register("page").unwrap();
    let sessionless = Client::builder().sessionless().connect(&cluster.url()).await.unwrap();
    let same = sessionless.keyspace("cache").await.unwrap().register("page").unwrap();
    for n in 0..5 {
        let (writer, reader) = if n % 2 == 0 { (&page, &same) } else { (&same, &page) };
        // A write that has read is later, whatever the clocks say.
        writer.read().await.unwrap();
        writer.put(&n).await.unwrap();
        assert_eq!(reader.read().await.unwrap().value::<i32>().unwrap(), Some(n));
    }
    same.delete().await.unwrap();
    assert!(page.read().await.unwrap().is_absent());
    let hits = app(&sessionless).await.collection("c").unwrap().counter("hits").unwrap();
    hits.add(2).await.unwrap();
    hits.reset().await.unwrap();
    hits.add(3).await.unwrap();
    assert_eq!(hits.read().await.unwrap(), 3);
}

#[tokio::test]
async fn a_session_goes_on_in_the_next_process() {
    let (cluster, _) = start().await;
    let mut stored = None;
    for _ in 0..3 {
        let builder = Client::builder();
        let builder = match stored {
            Some(session) => builder.session(session),
            None => builder,
        };
        let client = builder.connect(&cluster.url()).await.unwrap();
        app(&client).await.collection("c").unwrap().counter("hits").unwrap().add(1).await.unwrap();
        stored = client.suspend();
    }
    let client = cluster.client().await.unwrap();
    let key = app(&client).await.collection("c").unwrap().key("hits").unwrap();
    assert_eq!(key.counter().read().await.unwrap(), 3);
}

#[tokio::test]
async fn what_is_wrong_has_its_own_code() {
    let (cluster, client) = start().await;
    let other = Cluster::start(1).await.unwrap();
    let foreign = cluster.url().replace(cluster.ca_pin(), other.ca_pin());
    assert_eq!(code(Client::connect(&foreign).await), "untrusted");
    let nobody = format!("shoal://127.0.0.1:1/?ca={}", cluster.ca_pin());
    let hurried = Client::builder().deadline(Duration::from_millis(300));
    assert_eq!(code(hurried.connect(&nobody).await), "connect");
    assert_eq!(code(Client::connect("shoal://here").await), "config");

    assert_eq!(code(client.keyspace("none").await), "unknown_keyspace");
    let taken = client.create_keyspace("app", spec(KeyspaceLayout::Key, Conflict::Lww)).await;
    assert_eq!(code(taken), "keyspace_exists");
    let users = app(&client).await.collection("users").unwrap();
    let (one, two) = (users.key("one").unwrap(), users.key("two").unwrap());
    let written = one.register().add_sibling("x").await.unwrap();
    assert_eq!(code(two.consistent_with(&written.context).read().await), "context_mismatch");
    assert_eq!(code(one.r(4).read().await), "too_few_nodes");
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(code(one.register().add_sibling(&large).await), "limit");
    client.drop_keyspace("app").await.unwrap();
    assert_eq!(code(one.read().await), "keyspace_gone");
    assert_eq!(code(client.keyspace("app").await), "unknown_keyspace");
    let names: BTreeMap<_, _> =
        client.list_keyspaces().await.unwrap().into_iter().map(|info| (info.name.to_string(), info.spec)).collect();
    assert_eq!(names, [("cache".to_owned(), spec(KeyspaceLayout::Key, Conflict::Lww))].into());
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map(|_| "ok").unwrap_or_else(|error| error.code())
}
