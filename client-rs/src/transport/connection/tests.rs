//! One connection against a node played by hand.

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::join_all;
use shoal_protocol::client::{ClientRequest, SessionGrant};
use shoal_protocol::id::{Actor, ClusterId, NodeId};
use shoal_protocol::time::WallTime;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

use super::*;

/// The far end: reads what arrives, writes what it is told.
struct Node {
    stream: DuplexStream,
    frames: FrameReader,
}

impl Node {
    async fn next(&mut self) -> Frame {
        next_frame(&mut self.stream, &mut self.frames).await.unwrap().unwrap()
    }

    async fn send<T: serde::Serialize>(&mut self, kind: FrameKind, request: u64, message: &T) {
        let mut out = BytesMut::new();
        write_frame(&mut out, kind, RequestId(request), |body| codec::encode_to(message, body));
        self.stream.write_all(&out).await.unwrap();
    }

    async fn answer(&mut self, request: u64, version: &str) {
        let error = RequestError::BadRequest { reason: version.into() };
        self.send(FrameKind::Response, request, &Answer::Err(error)).await;
    }
}

/// Counts the writes that reach the stream.
struct Counting(WriteHalf<DuplexStream>, Arc<AtomicUsize>);

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn streams() -> (ReadHalf<DuplexStream>, Counting, Node, Arc<AtomicUsize>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(ours);
    let writes = Arc::new(AtomicUsize::new(0));
    let node = Node { stream: theirs, frames: FrameReader::new(CLIENT_FRAME_BYTES_MAX) };
    (reader, Counting(writer, Arc::clone(&writes)), node, writes)
}

fn hello() -> ClientHello {
    ClientHello { versions: (1, 1), session: None, access_token: Some("secret".into()), software: "test".into() }
}

static LEFT: AtomicBool = AtomicBool::new(false);
static CALL: ClientCall = ClientCall { deadline_ms: 1_000, request: ClientRequest::Status };

async fn connected() -> (Connection, Node, Arc<AtomicUsize>) {
    let (reader, writer, mut node, writes) = streams();
    let session = SessionGrant { actor: Actor::session(1, 1), mac: [0; 16] };
    let welcome = Welcome { version: 1, cluster: ClusterId(1), node: NodeId(1), session, wall: WallTime(0) };
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer) };
    let said = hello();
    let (connection, ()) = tokio::join!(Connection::open(stream, &said), async {
        let first = node.next().await;
        assert_eq!(first.kind, FrameKind::Hello);
        assert_eq!(codec::decode::<ClientHello>(&first.body).unwrap(), hello());
        node.send(FrameKind::Welcome, 0, &welcome).await;
    });
    let connection = connection.unwrap();
    assert_eq!(connection.welcome(), &welcome);
    (connection, node, writes)
}

#[tokio::test]
async fn answers_in_any_order_find_their_requests_and_requests_leave_together() {
    let (connection, mut node, writes) = connected().await;
    let before = writes.load(Ordering::Relaxed);
    let calls = join_all((0..100).map(|_| async { connection.call(&CALL, &LEFT).await }));
    let (answers, ()) = tokio::join!(calls, async {
        let mut requests = Vec::new();
        for _ in 0..100 {
            requests.push(node.next().await.request.0);
        }
        for request in requests.into_iter().rev() {
            node.answer(request, &request.to_string()).await;
        }
    });
    for (at, answer) in answers.into_iter().enumerate() {
        let reason = (at + 1).to_string();
        assert_eq!(answer, Err(End::Answered(RequestError::BadRequest { reason })));
    }
    assert_eq!(writes.load(Ordering::Relaxed) - before, 1);
    assert_eq!(connection.in_flight_count(), 0);
}

#[tokio::test]
async fn what_has_no_answer_when_the_connection_ends_is_lost_and_what_comes_later_is_not_sent() {
    let (connection, mut node, _) = connected().await;
    let (lost, ()) = tokio::join!(connection.call(&CALL, &LEFT), async {
        node.next().await;
        drop(node);
    });
    assert_eq!(lost, Err(End::Lost));
    assert_eq!(connection.call(&CALL, &LEFT).await, Err(End::NotSent));
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_goodbye_or_nonsense_ends_the_connection_and_loses_what_is_open() {
    for kind in [FrameKind::Goodbye, FrameKind::Response, FrameKind::Hello] {
        let (connection, mut node, _) = connected().await;
        let (lost, ()) = tokio::join!(connection.call(&CALL, &LEFT), async {
            node.next().await;
            node.send(kind, 1, &"nonsense").await;
        });
        assert_eq!(lost, Err(End::Lost), "{kind:?}");
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_behind_and_its_late_answer_harms_nobody() {
    let (connection, mut node, _) = connected().await;
    {
        let mut given_up = std::pin::pin!(connection.call(&CALL, &LEFT));
        assert!((&mut given_up).now_or_never().is_none());
        assert_eq!(connection.in_flight_count(), 1);
    }
    assert_eq!(connection.in_flight_count(), 0);
    let (answer, ()) = tokio::join!(connection.call(&CALL, &LEFT), async {
        let (first, second) = (node.next().await.request.0, node.next().await.request.0);
        node.answer(first, "late").await;
        node.answer(second, "mine").await;
    });
    assert_eq!(answer, Err(End::Answered(RequestError::BadRequest { reason: "mine".into() })));
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_until_others_are_answered() {
    let (connection, mut node, _) = connected().await;
    let count = IN_FLIGHT_KIB_MAX / REQUEST_KIB_MIN as usize;
    let mut calls = Box::pin(join_all((0..=count).map(|_| async { connection.call(&CALL, &LEFT).await })));
    // The runtime lets a task do only so much at a time.
    for _ in 0..count {
        assert!((&mut calls).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.in_flight_count(), count);
    let (answers, ()) = tokio::join!(calls, async {
        for _ in 0..=count {
            let request = node.next().await.request.0;
            node.answer(request, "done").await;
        }
    });
    assert_eq!(answers.len(), count + 1);
}

#[tokio::test]
async fn a_refused_hello_tells_why_and_anything_else_is_no_connection() {
    for (kind, refused) in [(FrameKind::Goodbye, true), (FrameKind::Response, false)] {
        let (reader, writer, mut node, _) = streams();
        let stream = Stream { reader: Box::new(reader), writer: Box::new(writer) };
        let said = hello();
        let (connection, ()) = tokio::join!(Connection::open(stream, &said), async {
            node.next().await;
            node.send(kind, 0, &RequestError::SessionExpired).await;
        });
        let error = connection.unwrap_err();
        assert_eq!(error == OpenError::Refused(RequestError::SessionExpired), refused, "{error}");
    }
    let (reader, writer, node, _) = streams();
    drop(node);
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer) };
    assert!(matches!(Connection::open(stream, &hello()).await, Err(OpenError::Broken(_))));
}
