//! One long-lived stream: hello each way, then frames of many requests interleaved.
//!
//! What: the client's and the peer's conversation, from whichever side opened it. Generic over the stream, so that QUIC,
//! WebTransport and WebSocket share it. Source: DESIGN §10.
//! Invariants: nothing is decoded before its length is known to be allowed; malformed frames end the connection with a
//! goodbye that says why; a malformed body, in a whole frame, costs only its own request.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_protocol::client::{ClientCall, ClientHello, ClientRequest, ClientResponse};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{CLIENT_FRAME_BYTES_MAX, Frame, FrameError, FrameKind, FrameReader, PEER_FRAME_BYTES_MAX};
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::peer::{PeerCall, PeerHello, PeerResponse, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use super::event::{Door, Event};
use super::load::Side;
use super::outbox::{Admission, FrameTooLong, LinkEnd, Outbox};
use super::tls::PeerIdentity;
use crate::node::{ConnectionId, Input, LinkId};

/// Serves a client until its stream ends.
pub(super) async fn serve_client<R, W>(reader: R, writer: W, door: &Door) -> LinkEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = door.outbox(Side::Client);
    let connection = ConnectionId(door.next_id());
    let conversation = async {
        let mut frames = Frames::new(reader, CLIENT_HELLO_BYTES_MAX);
        let hello: ClientHello = frames.first(FrameKind::Hello).await?;
        frames.allow(CLIENT_FRAME_BYTES_MAX);
        let arrival = Rc::clone(&outbox);
        let verdict = door.ask(|verdict| Event::ClientHello { connection, hello, outbox: arrival, verdict }).await?;
        let welcome = verdict.map_err(LinkEnd::Refused)?;
        say(&outbox, FrameKind::Welcome, &welcome)?;
        loop {
            let frame = frames.next().await?;
            expect(&frame, FrameKind::Request)?;
            take_client_call(frame, connection, welcome.session.actor, &outbox, door).await?;
        }
    };
    let end = run(&outbox, writer, conversation).await;
    let _ = door.tell(Event::ClientGone { connection }).await;
    end
}

/// Serves a node that dialed this one until its stream ends.
pub(super) async fn serve_peer<R, W>(reader: R, writer: W, identity: PeerIdentity, door: &Door) -> LinkEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = door.outbox(Side::Peer);
    let link = LinkId(door.next_id());
    let conversation = async {
        let mut frames = Frames::new(reader, PEER_HELLO_BYTES_MAX);
        let hello: PeerHello = frames.first(FrameKind::Hello).await?;
        frames.allow(PEER_FRAME_BYTES_MAX);
        let from = hello.member.node;
        identity.check_node(from).map_err(LinkEnd::Refused)?;
        let arrival = Rc::clone(&outbox);
        let verdict = door.ask(|verdict| Event::PeerHello { link, hello, outbox: arrival, verdict }).await?;
        say(&outbox, FrameKind::Welcome, &verdict.map_err(LinkEnd::Refused)?)?;
        loop {
            let frame = frames.next().await?;
            expect(&frame, FrameKind::Request)?;
            take_peer_call(frame, link, from, &outbox, door).await?;
        }
    };
    let end = run(&outbox, writer, conversation).await;
    let _ = door.tell(Event::LinkGone { link }).await;
    end
}

/// Why a node is dialed.
pub(super) enum Errand {
    /// To learn who answers at a seed's address.
    Find {
        /// `host:port`.
        seed: String,
    },
    /// To send calls to this node.
    Link {
        /// The node.
        node: NodeId,
    },
}

/// Speaks to a dialed node: until its stream ends, or (to find it) until it has said who it is.
pub(super) async fn call_peer<R, W>(
    reader: R,
    writer: W,
    identity: PeerIdentity,
    errand: Errand,
    door: &Door,
) -> LinkEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = door.outbox(Side::Peer);
    let announced = Cell::new(None);
    let conversation = async {
        let own = door.ask(|answer| Event::OwnHello { answer }).await?;
        say(&outbox, FrameKind::Hello, &own)?;
        let mut frames = Frames::new(reader, PEER_HELLO_BYTES_MAX);
        let hello: PeerHello = frames.first(FrameKind::Welcome).await?;
        frames.allow(PEER_FRAME_BYTES_MAX);
        identity.check_node(hello.member.node).map_err(LinkEnd::Refused)?;
        match errand {
            Errand::Find { seed } => {
                door.ask(|verdict| Event::Found { hello, seed, verdict }).await?.map_err(LinkEnd::Refused)?;
                Err(LinkEnd::Closed)
            }
            Errand::Link { node } if hello.member.node == node => {
                announced.set(Some(node));
                let arrival = Rc::clone(&outbox);
                let verdict = door.ask(|verdict| Event::PeerUp { hello, outbox: arrival, verdict }).await?;
                verdict.map_err(LinkEnd::Refused)?;
                loop {
                    let frame = frames.next().await?;
                    expect(&frame, FrameKind::Response)?;
                    let response = decode(&frame)?;
                    door.tell(Event::Input(Input::PeerAnswer { from: node, request: frame.request, response })).await?;
                }
            }
            // Addresses move: somebody else lives there now.
            Errand::Link { .. } => Err(LinkEnd::Closed),
        }
    };
    let end = run(&outbox, writer, conversation).await;
    if let Some(node) = announced.get() {
        let _ = door.tell(Event::PeerDown { node }).await;
    }
    end
}

/// Runs a conversation beside the writer, until either ends or the outbox is killed.
pub(super) async fn run<W>(
    outbox: &Outbox,
    mut writer: W,
    conversation: impl Future<Output = Result<Infallible, LinkEnd>>,
) -> LinkEnd
where
    W: AsyncWrite + Unpin,
{
    let talk = async {
        let Err(end) = conversation.await;
        if let LinkEnd::Refused(error) = &end {
            outbox.end_with(error);
            // The writer ends this first, unless the other end does not read.
            tokio::time::sleep(GOODBYE_WITHIN).await;
        }
        Err::<Infallible, _>(end)
    };
    let write = async { Err::<Infallible, _>(outbox.drain_into(&mut writer).await) };
    let dead = async { Err::<Infallible, _>(outbox.until_dead().await) };
    let Err(end) = tokio::try_join!(talk, write, dead);
    end
}

async fn take_client_call(
    frame: Frame,
    connection: ConnectionId,
    session: Actor,
    outbox: &Outbox,
    door: &Door,
) -> Result<(), LinkEnd> {
    let request = frame.request;
    let refuse = |error: RequestError| say_to(outbox, request, &Err::<ClientResponse, _>(error));
    let is_in_doubt = match admit(&frame, outbox)? {
        Room::Yes => false,
        Room::No => return refuse(RequestError::Overloaded { retry_after_ms: RETRY_AFTER_MS }),
        Room::OnlyForStatus => true,
    };
    match codec::decode::<ClientCall>(&frame.body) {
        Ok(call) if is_in_doubt && call.request != ClientRequest::Status => {
            refuse(RequestError::Overloaded { retry_after_ms: RETRY_AFTER_MS })
        }
        Ok(call) => door.tell(Event::Input(Input::ClientCall { connection, request, session, call })).await,
        Err(error) => {
            outbox.settle(request);
            refuse(RequestError::BadRequest { reason: error.to_string() })
        }
    }
}

async fn take_peer_call(frame: Frame, link: LinkId, from: NodeId, outbox: &Outbox, door: &Door) -> Result<(), LinkEnd> {
    let request = frame.request;
    if admit(&frame, outbox)? != Room::Yes {
        return say_to(outbox, request, &PeerResponse::Refused(Refusal::Overloaded));
    }
    match codec::decode::<PeerCall>(&frame.body) {
        Ok(call) => door.tell(Event::Input(Input::PeerCall { link, from, request, call })).await,
        Err(_) => {
            outbox.settle(request);
            say_to(outbox, request, &PeerResponse::Refused(Refusal::Malformed))
        }
    }
}

/// Whether a request may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Yes,
    No,
    /// The node is at a limit. Whoever asks how it is doing must be told all the same; that is done at once.
    OnlyForStatus,
}

fn admit(frame: &Frame, outbox: &Outbox) -> Result<Room, LinkEnd> {
    match outbox.admit(frame.request, frame.body.len()) {
        Admission::Admitted => Ok(Room::Yes),
        Admission::NodeOverloaded if frame.body.len() <= STATUS_BYTES_MAX => Ok(Room::OnlyForStatus),
        Admission::NodeOverloaded | Admission::Overloaded => Ok(Room::No),
        Admission::Duplicate => Err(bad(format!("request id {} is under way already", frame.request.0))),
    }
}

/// Cuts frames out of a stream.
pub(super) struct Frames<R> {
    reader: R,
    frames: FrameReader,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Before the hello only little is read.
    pub(super) fn new(reader: R, bytes_max: u32) -> Self {
        Self { reader, frames: FrameReader::new(bytes_max) }
    }

    /// Longer frames from now on.
    pub(super) fn allow(&mut self, bytes_max: u32) {
        let rest = self.frames.buffer().split();
        self.frames = FrameReader::new(bytes_max);
        self.frames.buffer().unsplit(rest);
    }

    pub(super) async fn next(&mut self) -> Result<Frame, LinkEnd> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(malformed)? {
                return Ok(frame);
            }
            self.frames.buffer().reserve(READ_BYTES);
            if self.reader.read_buf(self.frames.buffer()).await? == 0 {
                return Err(LinkEnd::Closed);
            }
        }
    }

    /// The frame that opens the conversation.
    pub(super) async fn first<T: DeserializeOwned>(&mut self, kind: FrameKind) -> Result<T, LinkEnd> {
        let frame = timeout(HELLO_WITHIN, self.next()).await.map_err(|_| bad("no hello in time"))??;
        expect(&frame, kind)?;
        decode(&frame)
    }
}

/// A goodbye ends the conversation; any other frame out of place ends it with one.
pub(super) fn expect(frame: &Frame, kind: FrameKind) -> Result<(), LinkEnd> {
    if frame.kind == kind {
        Ok(())
    } else if frame.kind == FrameKind::Goodbye {
        Err(LinkEnd::Dismissed(decode(frame)?))
    } else {
        Err(bad(format!("a {:?} frame where {kind:?} was due", frame.kind)))
    }
}

pub(super) fn decode<T: DeserializeOwned>(frame: &Frame) -> Result<T, LinkEnd> {
    codec::decode(&frame.body).map_err(bad)
}

pub(super) fn say<T: Serialize>(outbox: &Outbox, kind: FrameKind, body: &T) -> Result<(), LinkEnd> {
    outbox.queue(kind, RequestId(0), body).map_err(too_long)
}

fn say_to<T: Serialize>(outbox: &Outbox, request: RequestId, body: &T) -> Result<(), LinkEnd> {
    outbox.queue(FrameKind::Response, request, body).map_err(too_long)
}

fn malformed(error: FrameError) -> LinkEnd {
    if let FrameError::TooLong { bytes, bytes_max } = error {
        LinkEnd::Refused(frame_limit(bytes.into(), bytes_max))
    } else {
        bad(error)
    }
}

fn too_long(error: FrameTooLong) -> LinkEnd {
    LinkEnd::Refused(frame_limit(error.bytes, PEER_FRAME_BYTES_MAX))
}

/// A frame longer than allowed.
pub(super) fn frame_limit(actual: u64, max: u32) -> RequestError {
    RequestError::Limit { limit: "frame".to_owned(), actual, max: max.into() }
}

fn bad(reason: impl ToString) -> LinkEnd {
    LinkEnd::Refused(RequestError::BadRequest { reason: reason.to_string() })
}

/// From the opening of a stream to the whole hello.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a goodbye may take to reach the other end.
pub(super) const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Longest hello of a client, bytes: its name and one access token.
const CLIENT_HELLO_BYTES_MAX: u32 = 64 << 10;
/// Longest hello of a node, bytes: itself, with twice 16 addresses of up to 261 bytes, is below 10,000.
pub(super) const PEER_HELLO_BYTES_MAX: u32 = 64 << 10;
/// Room made before each read, bytes; guess: a few full packets.
const READ_BYTES: usize = 64 << 10;
/// No question for the status is longer, bytes: nothing longer is decoded while the node is at a limit.
const STATUS_BYTES_MAX: usize = 64;
/// What a client at its limit is told; guess: longer than the work under way should take.
const RETRY_AFTER_MS: u32 = 50;
