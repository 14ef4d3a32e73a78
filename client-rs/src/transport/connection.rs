//! One connection: many requests over one long-lived stream.
//!
//! Shape: callers append frames to one buffer and wake the writer, which sends what has gathered in one write; the reader
//! hands answers to whoever waits for their request id. Bounds: `IN_FLIGHT_KIB_MAX` of unanswered requests, further callers
//! wait; a frame is refused before it is sent when no node would take it.
//! Invariant: a request that was put into the buffer and has no answer when the connection ends is reported `Lost`, never
//! `NotSent`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use shoal_protocol::client::{ClientCall, ClientHello, ClientResponse, Welcome};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{CLIENT_FRAME_BYTES_MAX, Frame, FrameKind, FrameReader, PEER_FRAME_BYTES_MAX, write_frame};
use shoal_protocol::id::RequestId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::dial::Stream;
use super::locked;
use crate::retry::End;

/// A connection whose hello was welcomed. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    welcome: Welcome,
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

/// Why a stream did not become a connection. No request was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The node said why.
    #[error(transparent)]
    Refused(RequestError),
    /// The stream ended, or what came was no welcome.
    #[error("{0}")]
    Broken(String),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake_writer: Notify,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    out: BytesMut,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    last_request: u64,
    closed: bool,
}

type Answer = Result<ClientResponse, RequestError>;

impl Connection {
    /// Says hello on `stream` and waits for the welcome.
    pub(crate) async fn open(mut stream: Stream, hello: &ClientHello) -> Result<Self, OpenError> {
        let broken = |error: std::io::Error| OpenError::Broken(error.to_string());
        let mut out = BytesMut::new();
        write_frame(&mut out, FrameKind::Hello, RequestId(0), |body| codec::encode_to(hello, body));
        stream.writer.write_all(&out).await.map_err(broken)?;
        let mut frames = FrameReader::new(PEER_FRAME_BYTES_MAX);
        let first = match next_frame(&mut stream.reader, &mut frames).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(OpenError::Broken("the node closed the connection".into())),
            Err(reason) => return Err(OpenError::Broken(reason)),
        };
        let malformed = |error: codec::CodecError| OpenError::Broken(error.to_string());
        let welcome = match first.kind {
            FrameKind::Welcome => codec::decode::<Welcome>(&first.body).map_err(malformed)?,
            FrameKind::Goodbye => return Err(OpenError::Refused(codec::decode(&first.body).map_err(malformed)?)),
            FrameKind::Hello | FrameKind::Request | FrameKind::Response | FrameKind::Gossip => {
                return Err(OpenError::Broken(format!("a {:?} frame instead of a welcome", first.kind)));
            }
        };
        let room = Semaphore::new(IN_FLIGHT_KIB_MAX);
        let shared = Arc::new(Shared { state: Mutex::default(), wake_writer: Notify::new(), room });
        let writer = tokio::spawn(write_all(Arc::clone(&shared), stream.writer)).abort_handle();
        let reader = tokio::spawn(read_all(Arc::clone(&shared), stream.reader, frames)).abort_handle();
        Ok(Self { welcome, shared, tasks: [writer, reader] })
    }

    /// What the node said at the start.
    pub(crate) const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn is_closed(&self) -> bool {
        locked(&self.shared.state).closed
    }

    /// Requests without an answer.
    pub(crate) fn in_flight_count(&self) -> usize {
        locked(&self.shared.state).waiting.len()
    }

    /// Sends `call` and waits for its answer; `left` is set once it may reach the node.
    pub(crate) async fn call(&self, call: &ClientCall, left: &AtomicBool) -> Result<ClientResponse, End> {
        let body = codec::encode(call);
        let bytes_max = CLIENT_FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES;
        if body.len() > bytes_max {
            let (actual, max) = (body.len() as u64, bytes_max as u64);
            return Err(End::Answered(RequestError::Limit { limit: "frame".into(), actual, max }));
        }
        // At most 16 MiB, so it fits.
        let kib = u32::try_from(body.len().div_ceil(1024)).unwrap_or(u32::MAX).max(REQUEST_KIB_MIN);
        let _room = self.shared.room.acquire_many(kib).await.map_err(|_| End::NotSent)?;
        let mut ticket = self.shared.enqueue(&body).ok_or(End::NotSent)?;
        left.store(true, Ordering::Relaxed);
        match (&mut ticket.answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(End::Answered(error)),
            Err(_closed) => Err(End::Lost),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.close();
    }
}

impl Shared {
    fn enqueue(&self, body: &[u8]) -> Option<Ticket<'_>> {
        let (sender, answer) = oneshot::channel();
        let mut state = locked(&self.state);
        if state.closed {
            return None;
        }
        state.last_request += 1;
        let request = RequestId(state.last_request);
        state.waiting.insert(request, sender);
        write_frame(&mut state.out, FrameKind::Request, request, |out| out.extend_from_slice(body));
        drop(state);
        self.wake_writer.notify_one();
        Some(Ticket { shared: self, request, answer })
    }

    fn answer(&self, frame: &Frame) -> Result<(), String> {
        let answer: Answer = codec::decode(&frame.body).map_err(|error| error.to_string())?;
        // Nobody waits any more when the caller has given up.
        if let Some(waiting) = locked(&self.state).waiting.remove(&frame.request) {
            let _gone = waiting.send(answer);
        }
        Ok(())
    }

    /// Ends the connection: everybody who waits learns that the answer is lost.
    fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        state.waiting.clear();
        state.out.clear();
        drop(state);
        self.room.close();
        self.wake_writer.notify_one();
    }
}

/// One waiting request; gives its place up when dropped.
struct Ticket<'a> {
    shared: &'a Shared,
    request: RequestId,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        locked(&self.shared.state).waiting.remove(&self.request);
    }
}

async fn write_all(shared: Arc<Shared>, mut writer: Box<dyn AsyncWrite + Send + Unpin>) {
    loop {
        let out = {
            let mut state = locked(&shared.state);
            if state.closed {
                return;
            }
            state.out.split()
        };
        if out.is_empty() {
            shared.wake_writer.notified().await;
        } else if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
            shared.close();
            return;
        }
    }
}

async fn read_all(shared: Arc<Shared>, mut reader: Box<dyn AsyncRead + Send + Unpin>, mut frames: FrameReader) {
    let reason = loop {
        let frame = match next_frame(&mut reader, &mut frames).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break "the node closed it".into(),
            Err(reason) => break reason,
        };
        match frame.kind {
            FrameKind::Response => {
                if let Err(reason) = shared.answer(&frame) {
                    break reason;
                }
            }
            FrameKind::Goodbye => {
                let reason = codec::decode::<RequestError>(&frame.body).map(|error| error.to_string());
                break reason.unwrap_or_else(|error| error.to_string());
            }
            FrameKind::Hello | FrameKind::Welcome | FrameKind::Request | FrameKind::Gossip => {
                break format!("a node does not send {:?} frames here", frame.kind);
            }
        }
    };
    tracing::debug!(%reason, "connection ended");
    shared.close();
}

/// The next frame; `None` when the stream ended between frames.
async fn next_frame(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    frames: &mut FrameReader,
) -> Result<Option<Frame>, String> {
    loop {
        if let Some(frame) = frames.next_frame().map_err(|error| error.to_string())? {
            return Ok(Some(frame));
        }
        frames.buffer().reserve(READ_BYTES);
        match reader.read_buf(frames.buffer()).await {
            Ok(0) if frames.buffer().is_empty() => return Ok(None),
            Ok(0) => return Err("the connection ended within a frame".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Unanswered requests of one connection, KiB: what a caller may keep waiting in memory, here and at the node.
const IN_FLIGHT_KIB_MAX: usize = 64 << 10;
/// What the smallest request counts, so that at most 16,384 are in flight.
const REQUEST_KIB_MIN: u32 = 4;
/// Length, kind and request id of a frame, less the length field itself.
const FRAME_HEADER_BYTES: usize = 9;
/// Room made for one read: a few full-size datagrams' worth.
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
