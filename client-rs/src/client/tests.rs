//! The client against a cluster in memory, on a paused clock: what it does when nodes go silent, refuse, or vanish.

mod fake;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use shoal_protocol::address::Address;
use shoal_protocol::client::{ClientRequest, Write};
use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Element, Operation, View};
use tokio::time::Instant;

use super::{BatchAnswer, Builder, Client, Counter};
use crate::error::Error;
use fake::{Act, FakeCluster};

const DISK_FULL: Act = Act::Say(RequestError::DiskFull);

async fn connect_with(cluster: &FakeCluster, builder: Builder) -> Client {
    builder.connect_over(cluster.dial(), cluster.addresses(), None).await.unwrap()
}

async fn connect(cluster: &FakeCluster) -> Client {
    connect_with(cluster, Client::builder()).await
}

async fn counter(client: &Client) -> Counter {
    client.keyspace("app").await.unwrap().collection("c").unwrap().counter("k").unwrap()
}

fn writes(cluster: &FakeCluster) -> Vec<(String, Write)> {
    let write = |(node, request)| if let ClientRequest::Write(write) = request { Some((node, write)) } else { None };
    cluster.log().into_iter().filter_map(write).collect()
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_on_at_another_node_with_the_same_bytes_and_counts_once() {
    let cluster = FakeCluster::start(3);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[Act::ApplyThenDrop]);
    counter.add(5).await.unwrap();
    let sent = writes(&cluster);
    assert_eq!(sent.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(sent[0].1, sent[1].1);
    assert_eq!(counter.read().await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_carries_the_operation_and_repeating_it_counts_once() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    let counter = counter(&client).await;
    cluster.script("a", &[Act::ApplyThenDrop]);
    cluster.set_up("a", false);
    let error = counter.add(5).await.unwrap_err();
    assert_eq!(error.code(), "unknown");
    cluster.set_up("a", true);
    // A new operation stands on the unknown one, which stays in the total.
    counter.add(1).await.unwrap();
    client.repeat(error.operation().unwrap()).await.unwrap();
    client.repeat(error.operation().unwrap()).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_attempt_or_a_repeat_is_unknown() {
    let cluster = FakeCluster::start(2);
    let client = connect(&cluster).await;
    let counter = counter(&client).await;
    cluster.script("a", &[Act::ApplyThenDrop]);
    cluster.script("b", &[DISK_FULL, DISK_FULL]);
    let error = counter.add(5).await.unwrap_err();
    assert!(error.operation().is_some(), "{error}");
    cluster.set_up("a", false);
    let again = client.repeat(error.operation().unwrap()).await.unwrap_err();
    assert_eq!((again.code(), again.operation()), ("unknown", error.operation()));
    assert_eq!(counter.read().await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_never_counts() {
    let cluster = FakeCluster::start(3);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[DISK_FULL]);
    assert_eq!(counter.add(100).await.unwrap_err().code(), "disk_full");
    counter.add(1).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_additions_to_one_counter_take_turns_and_all_count() {
    let cluster = FakeCluster::start(3);
    let counter = counter(&connect(&cluster).await).await;
    let lost = [Act::Answer, Act::ApplyThenDrop, Act::Answer, Act::DropBefore];
    cluster.script("a", &lost);
    cluster.script("b", &lost);
    let results = join_all((1..=20).map(|by| counter.add(by))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(counter.read().await.unwrap(), 210);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_waiting_leaves_an_unknown_operation_behind_not_a_stuck_counter() {
    let cluster = FakeCluster::start(1);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[Act::ApplyThenSilence]);
    let patience = Duration::from_millis(100);
    assert!(tokio::time::timeout(patience, counter.add(5)).await.is_err());
    counter.add(1).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_node_is_left_for_another_and_an_overloaded_cluster_for_the_time_it_names() {
    let cluster = FakeCluster::start(3);
    let counter = counter(&connect(&cluster).await).await;
    let overloaded = |retry_after_ms| Act::Say(RequestError::Overloaded { retry_after_ms });
    let start = Instant::now();
    cluster.script("a", &[overloaded(900)]);
    counter.add(1).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "there was another node");
    for node in ["a", "b", "c"] {
        cluster.script(node, &[overloaded(900)]);
    }
    counter.add(1).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(counter.read().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_budget_not_with_the_deadline() {
    let cluster = FakeCluster::start(3);
    cluster.set_holder(0);
    let client = connect_with(&cluster, Client::builder().deadline(Duration::from_secs(3_600))).await;
    let counter = counter(&client).await;
    for node in ["a", "b", "c"] {
        cluster.script(node, &vec![Act::Say(RequestError::Overloaded { retry_after_ms: 1 }); 1_000]);
    }
    assert_eq!(counter.add(1).await.unwrap_err().code(), "overloaded");
    assert_eq!(cluster.log().len(), 1 + 20, "the first attempt, and the budget's reserve");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_hedged() {
    let cluster = FakeCluster::start(3);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[Act::ApplyThenSilence]);
    let start = Instant::now();
    counter.add(5).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(counter.read().await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_not_dialed_by_every_request_and_is_found_again() {
    let cluster = FakeCluster::start(2);
    cluster.set_up("a", false);
    let counter = counter(&connect(&cluster).await).await;
    for _ in 0..100 {
        counter.add(1).await.unwrap();
    }
    let to_a = || cluster.dials().iter().filter(|name| *name == "a").count();
    assert!(to_a() < 10, "{}", to_a());
    cluster.set_up("a", true);
    cluster.set_up("b", false);
    cluster.script("b", &[Act::DropBefore]);
    counter.add(1).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 101);
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_connect_and_nothing_in_time_is_timeout() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    let counter = counter(&client).await;
    cluster.script("a", &[Act::ApplyThenSilence]);
    assert_eq!(counter.read().await.unwrap_err().code(), "timeout");
    cluster.set_up("a", false);
    cluster.script("a", &[Act::DropBefore]);
    assert_eq!(counter.read().await.unwrap_err().code(), "timeout", "it was sent once");
    let start = Instant::now();
    assert_eq!(counter.add(1).await.unwrap_err().code(), "connect");
    assert!(start.elapsed() >= Duration::from_secs(5), "tried until the deadline");
    let nobody = Client::builder().connect_over(cluster.dial(), vec!["z".into()], None).await;
    assert_eq!(nobody.unwrap_err().code(), "connect");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_refused_is_replaced_and_the_operation_goes_through() {
    let cluster = FakeCluster::start(1);
    let counter = counter(&connect(&cluster).await).await;
    counter.add(1).await.unwrap();
    cluster.script("a", &[Act::Say(RequestError::SessionExpired)]);
    counter.add(2).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 3);
    let bytes: Vec<_> = writes(&cluster).into_iter().map(|(_, write)| write.delta).collect();
    assert_eq!(bytes.len(), 3);
    assert_ne!(bytes[1], bytes[2], "bound anew");
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_is_gone_on_with_and_replaced_when_it_has_expired() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    counter(&client).await.add(1).await.unwrap();
    let stored = client.suspend().unwrap();
    counter(&client).await.add(10).await.unwrap();
    let second = connect_with(&cluster, Client::builder().session(stored.clone())).await;
    counter(&second).await.add(100).await.unwrap();
    let resumed = second.suspend().unwrap();
    assert_eq!(resumed.clone().resume().grant(), stored.resume().grant());
    cluster.expire(resumed.clone().resume().grant().actor);
    let third = connect_with(&cluster, Client::builder().session(resumed)).await;
    counter(&third).await.add(1_000).await.unwrap();
    assert_eq!(counter(&third).await.read().await.unwrap(), 1_111);
}

#[tokio::test(start_paused = true)]
async fn requests_go_to_the_replica_that_the_routes_name() {
    let cluster = FakeCluster::start(3);
    cluster.set_holder(2);
    let client = connect(&cluster).await;
    let key = client.keyspace("app").await.unwrap().collection("c").unwrap().key("k").unwrap();
    let holders = key.locate().await.unwrap();
    assert_eq!(holders.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["c"]);
    key.counter().add(1).await.unwrap();
    cluster.script("c", &[Act::DropBefore]);
    cluster.set_up("c", false);
    key.counter().add(1).await.unwrap();
    assert_eq!(writes(&cluster).iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["c", "c", "a"]);
    assert_eq!(key.counter().read().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unrouted_client_asks_the_configured_nodes_only() {
    let cluster = FakeCluster::start(3);
    cluster.set_holder(2);
    let unrouted = Client::builder().unrouted();
    let client = unrouted.connect_over(cluster.dial(), vec!["b".into()], None).await.unwrap();
    let counter = counter(&client).await;
    counter.key().locate().await.unwrap();
    counter.add(1).await.unwrap();
    assert_eq!(cluster.dials(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn reads_through_a_handle_cover_its_writes_and_another_handle_can_be_told_to() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    let chat = client.keyspace("app").await.unwrap().collection("c").unwrap();
    let flag = chat.flag("k").unwrap();
    let written = flag.enable().await.unwrap();
    assert!(flag.read().await.unwrap());
    assert!(chat.flag("k").unwrap().consistent_with(&written.context).read().await.unwrap());
    assert!(chat.flag("k").unwrap().read().await.unwrap());
    let asked = |(_, request)| if let ClientRequest::Get(get) = request { Some(get.min_ctx) } else { None };
    let asked: Vec<_> = cluster.log().into_iter().filter_map(asked).collect();
    assert_eq!(asked, [Some(written.context.clone()), Some(written.context), None]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_replaces_what_it_has_seen_and_siblings_are_told_apart() {
    let cluster = FakeCluster::start(1);
    let chat = connect(&cluster).await.keyspace("app").await.unwrap().collection("c").unwrap();
    let topic = chat.register("topic").unwrap();
    let absent = topic.read().await.unwrap();
    assert!(absent.is_absent());
    absent.replace("birds").await.unwrap();
    let read = topic.read().await.unwrap();
    topic.add_sibling("fish").await.unwrap();
    read.replace("cats").await.unwrap();
    let entry = topic.read().await.unwrap();
    assert_eq!(entry.siblings::<String>().unwrap(), ["fish", "cats"]);
    assert!(matches!(entry.value::<String>(), Err(Error::Siblings { count: 2 })));
    topic.update(|siblings: Vec<String>| siblings.join(" and ")).await.unwrap();
    assert_eq!(topic.read().await.unwrap().value::<String>().unwrap().as_deref(), Some("fish and cats"));
    topic.delete().await.unwrap();
    assert_eq!(topic.read().await.unwrap().value::<String>().unwrap(), None);
    assert_eq!(topic.put("blind").await.unwrap_err().code(), "bad_request");
}

#[tokio::test(start_paused = true)]
async fn typed_handles_do_what_they_say_also_inside_maps() {
    let cluster = FakeCluster::start(1);
    let chat = connect(&cluster).await.keyspace("app").await.unwrap().collection("c").unwrap();
    let profile = chat.map("ada").unwrap();
    profile.register("name").update(|_: Vec<String>| "Ada".into()).await.unwrap();
    profile.counter("visits").add(3).await.unwrap();
    profile.counter("visits").reset().await.unwrap();
    profile.counter("visits").add(4).await.unwrap();
    profile.map("deep").set("tags").add("x").await.unwrap();
    profile.map("deep").set("tags").add(7).await.unwrap();
    profile.map("deep").set("tags").remove("x").await.unwrap();
    profile.flag("on").enable().await.unwrap();
    profile.flag("on").disable().await.unwrap();
    assert_eq!(profile.counter("visits").read().await.unwrap(), 4);
    assert!(!profile.flag("on").read().await.unwrap());
    assert!(profile.map("deep").set("tags").contains(7).await.unwrap());
    assert_eq!(profile.map("deep").set("tags").read().await.unwrap(), [Element::Int(7)].into());
    profile.remove("deep").await.unwrap();
    let fields = profile.read().await.unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["name", "visits"]);
    assert_eq!(chat.set("ada").unwrap().read().await.unwrap_err().code(), "wrong_type");
    profile.delete().await.unwrap();
    assert_eq!(profile.read().await.unwrap(), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn an_lww_put_is_blind_and_layouts_are_kept_apart() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    let cache = client.keyspace("cache").await.unwrap();
    let page = cache.register("page").unwrap();
    page.put(&1).await.unwrap();
    page.put(&2).await.unwrap();
    assert_eq!(page.read().await.unwrap().value::<i32>().unwrap(), Some(2));
    assert_eq!(writes(&cluster).len(), cluster.log().len() - 1, "puts read nothing");
    assert_eq!(cache.collection("c").unwrap_err().code(), "config");
    let address = Address::parse("app/c/k").unwrap();
    assert_eq!(client.key(&address).await.unwrap().address(), &address);
    assert_eq!(client.keyspace("app").await.unwrap().key("k").unwrap_err().code(), "config");
    assert_eq!(client.keyspace("none").await.unwrap_err().code(), "unknown_keyspace");
}

#[tokio::test(start_paused = true)]
async fn a_value_lives_as_long_as_its_handle_says() {
    let cluster = FakeCluster::start(1);
    let cache = connect(&cluster).await.keyspace("cache").await.unwrap();
    let page = cache.register("page").unwrap();
    page.expires_in(Duration::from_secs(3_600)).put("kept").await.unwrap();
    assert_eq!(page.read().await.unwrap().value::<String>().unwrap().as_deref(), Some("kept"));
    page.expires_in(Duration::ZERO).put("gone").await.unwrap();
    assert!(page.read().await.unwrap().is_absent());
}

#[tokio::test(start_paused = true)]
async fn a_batch_gives_every_operation_its_verdict_and_counters_take_turns() {
    let cluster = FakeCluster::start(2);
    let client = connect(&cluster).await;
    let chat = client.keyspace("app").await.unwrap().collection("c").unwrap();
    let (count, set) = (chat.key("count").unwrap(), chat.key("set").unwrap());
    set.set().add("x").await.unwrap();
    cluster.script("a", &[Act::Answer, Act::ApplyThenDrop]);
    let mut batch = client.batch();
    batch.operate(&count, Operation::CounterAdd { by: 1 });
    batch.operate(&set, Operation::SetClear);
    batch.operate(&count, Operation::CounterAdd { by: 2 });
    batch.read(&count);
    batch.operate(&set, Operation::SetAdd { element: Element::Int(1) });
    let verdicts = batch.send().await.unwrap();
    assert_eq!(verdicts.len(), 5);
    assert!(matches!(&verdicts[3], Ok(BatchAnswer::Read(read)) if *read.view() == View::Absent));
    assert!(verdicts.iter().enumerate().all(|(at, v)| at == 3 || matches!(v, Ok(BatchAnswer::Written(_)))));
    assert_eq!(count.counter().read().await.unwrap(), 3);
    assert_eq!(set.set().read().await.unwrap(), [Element::Int(1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_an_answer_leaves_every_operation_repeatable() {
    let cluster = FakeCluster::start(1);
    let client = connect(&cluster).await;
    let key = counter(&client).await.key().clone();
    let mut batch = client.batch();
    batch.operate(&key, Operation::CounterAdd { by: 1 });
    cluster.script("a", &[Act::ApplyThenDrop]);
    cluster.set_up("a", false);
    let verdicts = batch.send().await.unwrap();
    let error = verdicts[0].as_ref().unwrap_err();
    cluster.set_up("a", true);
    client.repeat(error.operation().unwrap()).await.unwrap();
    assert_eq!(key.counter().read().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn scans_page_resume_and_count() {
    let cluster = FakeCluster::start(1);
    let chat = connect(&cluster).await.keyspace("app").await.unwrap().collection("c").unwrap();
    for n in 0..7 {
        chat.register(format!("k{n}")).unwrap().add_sibling(&n).await.unwrap();
    }
    let rows: Vec<_> = chat.scan().page_rows(3).rows().collect().await;
    let values: Vec<i32> = rows.iter().map(|row| row.as_ref().unwrap().value().unwrap().unwrap()).collect();
    assert_eq!(values, [0, 1, 2, 3, 4, 5, 6]);
    let page = chat.scan().limit(2).page().await.unwrap();
    let cursor = page.cursor.unwrap().to_string().parse().unwrap();
    let rest: Vec<_> = chat.scan().keys_only().page_rows(2).limit(3).from_cursor(cursor).rows().collect().await;
    let keys: Vec<_> = rest.into_iter().map(|row| row.unwrap().key).collect();
    assert_eq!(keys, ["k2", "k3", "k4"]);
    let count = chat.scan().count().await.unwrap();
    assert_eq!((count.rows, count.complete), (7, true));
}

#[tokio::test(start_paused = true)]
async fn without_a_session_nothing_is_repeated_that_may_have_happened() {
    let cluster = FakeCluster::start(3);
    let client = connect_with(&cluster, Client::builder().sessionless()).await;
    let counter = counter(&client).await;
    cluster.script("a", &[Act::Say(RequestError::Unavailable { replied: 1, needed: 2 })]);
    counter.add(1).await.unwrap();
    assert_eq!(cluster.log().len(), 2, "nothing had happened: another node was asked");
    cluster.script("a", &[Act::DropBefore]);
    cluster.script("b", &[Act::DropBefore]);
    cluster.script("c", &[Act::DropBefore]);
    let error = counter.add(1).await.unwrap_err();
    assert_eq!((error.code(), error.operation()), ("unknown", None));
    assert_eq!(cluster.log().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_no_node_would_take_is_not_sent() {
    let cluster = FakeCluster::start(1);
    let cache = connect(&cluster).await.keyspace("cache").await.unwrap();
    let blob = crate::value::bytes(vec![0; 17 << 20]);
    assert_eq!(cache.register("big").unwrap().put_value(blob).await.unwrap_err().code(), "limit");
    assert_eq!(cluster.log(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_not_repeated() {
    let cluster = FakeCluster::start(2);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[Act::Say(RequestError::Stale { object: bytes::Bytes::new() })]);
    assert_eq!(counter.read().await.unwrap_err().code(), "stale");
    assert_eq!(cluster.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_answer_is_repeated_at_another_node_at_once() {
    let cluster = FakeCluster::start(2);
    let counter = counter(&connect(&cluster).await).await;
    cluster.script("a", &[Act::ApplyThenSay(RequestError::Unknown { acked: 1, needed: 2 })]);
    counter.add(1).await.unwrap();
    assert_eq!(counter.read().await.unwrap(), 1);
}
