//! What waits to be written to one connection, and what the other end waits for.
//!
//! What: frames are appended to one buffer; a writing task takes all of it at each wake-up, so everything the event loop
//! said in one batch leaves in one write. Beside it stands the ledger of requests without an answer. Source: DESIGN §10.
//! Invariants: bounded by `LinkLimits`, and with all others by `LoadLimits`: a reader too slow for what it asked for, or one
//! that has stopped to read, loses its connection; a caller with too much under way is refused before any work. Only one
//! thread touches it, so it needs no lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{FrameKind, PEER_FRAME_BYTES_MAX, write_frame};
use shoal_protocol::id::RequestId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::limits::LinkLimits;
use super::load::{Load, Side};

/// The writing side of one connection.
pub(super) struct Outbox {
    limits: LinkLimits,
    load: Rc<Load>,
    side: Side,
    inner: RefCell<Inner>,
    /// Something to write.
    queued: Notify,
    /// The connection must end at once.
    dead: Notify,
}

#[derive(Default)]
struct Inner {
    buffer: BytesMut,
    /// Taken by the writer, not yet accepted by the transport.
    writing_bytes: usize,
    in_flight: BTreeMap<RequestId, usize>,
    in_flight_bytes: usize,
    state: State,
    /// Why it is dead, until that was told.
    end: Option<LinkEnd>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// A goodbye is queued; nothing may follow it.
    Ending,
    Dead,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    /// The other end finished.
    #[error("closed by the other end")]
    Closed,
    /// The transport failed.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// This end refused to go on; a goodbye says why.
    #[error("refused: {0}")]
    Refused(RequestError),
    /// The other end refused to go on.
    #[error("the other end refused: {0}")]
    Dismissed(RequestError),
    /// The goodbye is written.
    #[error("goodbye said")]
    GoodbyeSaid,
    /// The node ended the connection.
    #[error("dropped by this node")]
    Dropped,
    /// More waits for the other end than may.
    #[error("the reader is too slow: {waiting_bytes} bytes wait for it, {bytes_max} may")]
    SlowReader {
        /// What waits.
        waiting_bytes: usize,
        /// What may.
        bytes_max: usize,
    },
    /// Something waits for the other end, and it takes nothing.
    #[error("the reader has taken nothing for {ms} ms")]
    StalledReader {
        /// For how long.
        ms: usize,
    },
    /// One end does not accept the other's certificate.
    #[error("{0}")]
    Untrusted(&'static str),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is; `settle` will be called with its id.
    Admitted,
    /// A request with this id is under way.
    Duplicate,
    /// Too much is under way on this connection.
    Overloaded,
    /// Too much is under way, or waits for slow readers, on all connections together.
    NodeOverloaded,
}

/// The frame is longer than any reader accepts. It was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameTooLong {
    /// Its length.
    pub(super) bytes: u64,
}

impl Outbox {
    pub(super) fn new(limits: LinkLimits, load: Rc<Load>, side: Side) -> Self {
        Self { limits, load, side, inner: RefCell::default(), queued: Notify::new(), dead: Notify::new() }
    }

    /// Takes a request of `bytes` into the ledger, if the limits allow.
    pub(super) fn admit(&self, request: RequestId, bytes: usize) -> Admission {
        let mut inner = self.inner.borrow_mut();
        if inner.in_flight.contains_key(&request) {
            return Admission::Duplicate;
        }
        let bytes_after = inner.in_flight_bytes + bytes;
        if inner.in_flight.len() >= self.limits.in_flight_count_max
            || (bytes_after > self.limits.in_flight_bytes_max && !inner.in_flight.is_empty())
        {
            return Admission::Overloaded;
        }
        if !self.load.has_room(self.side, bytes) {
            return Admission::NodeOverloaded;
        }
        self.load.took(self.side, bytes);
        inner.in_flight.insert(request, bytes);
        inner.in_flight_bytes = bytes_after;
        Admission::Admitted
    }

    /// Strikes an answered request off the ledger.
    pub(super) fn settle(&self, request: RequestId) {
        let mut inner = self.inner.borrow_mut();
        let bytes = inner.in_flight.remove(&request).unwrap_or(0);
        inner.in_flight_bytes -= bytes;
        self.load.settled(self.side, bytes);
    }

    /// Requests without an answer.
    pub(super) fn in_flight_count(&self) -> usize {
        self.inner.borrow().in_flight.len()
    }

    /// Queues one frame. On a connection that is ending it is dropped: nobody will read it.
    ///
    /// # Errors
    /// `FrameTooLong`; nothing was queued.
    pub(super) fn queue<T: Serialize>(
        &self,
        kind: FrameKind,
        request: RequestId,
        body: &T,
    ) -> Result<(), FrameTooLong> {
        let mut inner = self.inner.borrow_mut();
        if inner.state != State::Open {
            return Ok(());
        }
        let start = inner.buffer.len();
        let (waiting_bytes, bytes_max) = (start + inner.writing_bytes, self.limits.outbox_bytes_max);
        if waiting_bytes > bytes_max {
            drop(inner);
            self.end_at_once(LinkEnd::SlowReader { waiting_bytes, bytes_max });
            return Ok(());
        }
        write_frame(&mut inner.buffer, kind, request, |out| codec::encode_to(body, out));
        let bytes = (inner.buffer.len() - start) as u64;
        if bytes > u64::from(PEER_FRAME_BYTES_MAX) {
            inner.buffer.truncate(start);
            return Err(FrameTooLong { bytes });
        }
        self.load.queued(inner.buffer.len() - start);
        self.queued.notify_one();
        Ok(())
    }

    /// Queues a goodbye as the last frame.
    pub(super) fn end_with(&self, error: &RequestError) {
        // An error is far below the limit of a frame.
        let _ = self.queue(FrameKind::Goodbye, RequestId(0), error);
        let mut inner = self.inner.borrow_mut();
        if inner.state == State::Open {
            inner.state = State::Ending;
            self.queued.notify_one();
        }
    }

    /// Ends the connection at once; what is queued is lost.
    pub(super) fn kill(&self) {
        self.end_at_once(LinkEnd::Dropped);
    }

    fn end_at_once(&self, end: LinkEnd) {
        let mut inner = self.inner.borrow_mut();
        inner.state = State::Dead;
        inner.end.get_or_insert(end);
        self.load.left(inner.buffer.len());
        inner.buffer = BytesMut::new();
        self.dead.notify_one();
    }

    /// Resolves once the connection must end at once, with the reason.
    pub(super) async fn until_dead(&self) -> LinkEnd {
        self.dead.notified().await;
        self.inner.borrow_mut().end.take().unwrap_or(LinkEnd::Dropped)
    }

    /// Writes what is queued, whenever there is something, until the connection ends.
    pub(super) async fn drain_into<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> LinkEnd {
        let mut chunk = BytesMut::new();
        loop {
            let ending = self.swap(&mut chunk);
            if !chunk.is_empty() {
                if let Err(end) = self.write(writer, &chunk).await {
                    return end;
                }
                self.load.left(std::mem::take(&mut self.inner.borrow_mut().writing_bytes));
                chunk.clear();
                if chunk.capacity() > SPARE_BYTES_MAX {
                    chunk = BytesMut::new();
                }
            } else if ending {
                return writer.shutdown().await.map_or_else(LinkEnd::Failed, |()| LinkEnd::GoodbyeSaid);
            } else {
                self.queued.notified().await;
            }
        }
    }

    /// Exchanges the queue for the (empty) `chunk`; says whether the connection is to end after it.
    fn swap(&self, chunk: &mut BytesMut) -> bool {
        let mut inner = self.inner.borrow_mut();
        std::mem::swap(&mut inner.buffer, chunk);
        inner.writing_bytes = chunk.len();
        inner.state == State::Ending
    }

    /// Writes all of `chunk`, as long as the other end goes on to take something.
    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, mut chunk: &[u8]) -> Result<(), LinkEnd> {
        let ms = self.limits.stalled_ms_max;
        let patience = Duration::from_millis(ms as u64);
        while !chunk.is_empty() {
            let written = timeout(patience, writer.write(chunk)).await.map_err(|_| LinkEnd::StalledReader { ms })??;
            if written == 0 {
                return Err(LinkEnd::Failed(io::ErrorKind::WriteZero.into()));
            }
            chunk = &chunk[written..];
        }
        Ok(writer.flush().await?)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        self.load.left(inner.buffer.len() + inner.writing_bytes);
        self.load.settled(self.side, inner.in_flight_bytes);
    }
}

/// A buffer larger than this is given back after use, bytes: many connections must not each keep their largest answer.
const SPARE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::limits::LoadLimits;

    const LIMITS: LinkLimits =
        LinkLimits { in_flight_count_max: 2, in_flight_bytes_max: 100, outbox_bytes_max: 1_000, stalled_ms_max: 10 };

    fn outbox() -> Outbox {
        Outbox::new(LIMITS, Rc::new(Load::new(LoadLimits::default())), Side::Client)
    }

    #[test]
    fn the_ledger_refuses_beyond_its_limits_and_takes_again_after_an_answer() {
        let outbox = outbox();
        assert_eq!(outbox.admit(RequestId(1), 60), Admission::Admitted);
        assert_eq!(outbox.admit(RequestId(1), 1), Admission::Duplicate);
        assert_eq!(outbox.admit(RequestId(2), 41), Admission::Overloaded);
        assert_eq!(outbox.admit(RequestId(2), 40), Admission::Admitted);
        assert_eq!(outbox.admit(RequestId(3), 0), Admission::Overloaded);
        outbox.settle(RequestId(1));
        assert_eq!(outbox.admit(RequestId(3), 60), Admission::Admitted);
    }

    #[test]
    fn a_single_request_over_the_byte_limit_is_still_taken() {
        assert_eq!(outbox().admit(RequestId(1), 101), Admission::Admitted);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn frames_queued_together_leave_in_one_write_and_nothing_follows_a_goodbye() {
        let outbox = outbox();
        outbox.queue(FrameKind::Response, RequestId(1), &"one").unwrap();
        outbox.queue(FrameKind::Response, RequestId(2), &"two").unwrap();
        outbox.end_with(&RequestError::DiskFull);
        outbox.queue(FrameKind::Response, RequestId(3), &"three").unwrap();
        let mut writes = Writes(Vec::new());
        assert!(matches!(outbox.drain_into(&mut writes).await, LinkEnd::GoodbyeSaid));
        assert_eq!(writes.0.len(), 1);
        let mut frames = shoal_protocol::frame::FrameReader::new(1_000);
        frames.buffer().extend_from_slice(&writes.0[0]);
        let kinds: Vec<_> = std::iter::from_fn(|| frames.next_frame().unwrap()).map(|frame| frame.kind).collect();
        assert_eq!(kinds, [FrameKind::Response, FrameKind::Response, FrameKind::Goodbye]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_never_reads_is_dropped_at_the_bound() {
        let outbox = outbox();
        for request in 0..200 {
            outbox.queue(FrameKind::Response, RequestId(request), &"0123456789").unwrap();
        }
        let LinkEnd::SlowReader { waiting_bytes, bytes_max: 1_000 } = outbox.until_dead().await else { panic!() };
        assert!((1_001..1_100).contains(&waiting_bytes), "{waiting_bytes}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_has_stopped_is_dropped_though_it_is_below_the_bound() {
        let outbox = outbox();
        outbox.queue(FrameKind::Response, RequestId(1), &"one").unwrap();
        // Nothing is taken out of the other end.
        let (mut writer, _reader) = tokio::io::duplex(1);
        assert!(matches!(outbox.drain_into(&mut writer).await, LinkEnd::StalledReader { ms: 10 }));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_one_connection_holds_another_has_not() {
        let limits = LoadLimits { request_bytes_max: 100, outbox_bytes_max: 50, ..LoadLimits::default() };
        let load = Rc::new(Load::new(limits));
        let [one, other] = [(); 2].map(|()| Outbox::new(LIMITS, Rc::clone(&load), Side::Client));
        let node = Outbox::new(LIMITS, Rc::clone(&load), Side::Peer);
        assert_eq!(one.admit(RequestId(1), 60), Admission::Admitted);
        assert_eq!(other.admit(RequestId(1), 41), Admission::NodeOverloaded);
        assert_eq!(node.admit(RequestId(1), 41), Admission::Admitted);
        drop(one);
        assert_eq!(other.admit(RequestId(1), 41), Admission::Admitted);
        other.settle(RequestId(1));

        let third = Outbox::new(LIMITS, load, Side::Client);
        third.queue(FrameKind::Response, RequestId(1), &"x".repeat(60)).unwrap();
        assert_eq!(other.admit(RequestId(2), 1), Admission::NodeOverloaded);
        third.end_with(&RequestError::DiskFull);
        assert!(matches!(third.drain_into(&mut Writes(Vec::new())).await, LinkEnd::GoodbyeSaid));
        assert_eq!(other.admit(RequestId(2), 1), Admission::Admitted, "it has left");
    }

    /// Records each write.
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            std::task::Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
}
