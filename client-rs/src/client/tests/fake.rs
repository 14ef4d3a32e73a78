//! A cluster in memory: nodes that speak frames over `tokio::io::duplex` and share one store, as if every write reached all
//! of them. What a node does with its next data requests can be scripted; everything that arrives is noted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use shoal_protocol::address::{KeyspaceName, Place};
use shoal_protocol::causality::{Context, ContextKey, ContextKeys, EncodedContext};
use shoal_protocol::client::{
    ClientCall, ClientHello, ClientRequest, ClientResponse, Got, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec,
    NodeEndpoint, Page, QuorumMode, Routes, Row, ScanScope, SessionGrant, Welcome, Written,
};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{CLIENT_FRAME_BYTES_MAX, Frame, FrameKind, FrameReader, write_frame};
use shoal_protocol::id::{Actor, Class, ClusterId, KeyspaceId, NodeId, PARTITIONS_COUNT, RequestId, ViewId};
use shoal_protocol::object::{Conflict, Object};
use shoal_protocol::time::WallTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::transport::{Dial, DialError, Dialing, Stream, locked};

/// What a node does with a data request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// Applies and answers.
    Answer,
    /// Applies, and ends the connection without an answer.
    ApplyThenDrop,
    /// Ends the connection without having applied anything.
    DropBefore,
    /// Applies, and never answers.
    ApplyThenSilence,
    /// Applies nothing, and says this.
    Say(RequestError),
    /// Applies, and says this.
    ApplyThenSay(RequestError),
}

/// The nodes and what they share.
#[derive(Clone)]
pub(crate) struct FakeCluster(Arc<Mutex<World>>);

struct World {
    nodes: BTreeMap<String, FakeNode>,
    objects: BTreeMap<Place, Object>,
    keyspaces: Vec<KeyspaceInfo>,
    sessions: u64,
    expired: Vec<Actor>,
    /// The node that holds everything, if the routes say so.
    holder: Option<u16>,
    log: Vec<(String, ClientRequest)>,
    dials: Vec<String>,
}

struct FakeNode {
    id: NodeId,
    up: bool,
    script: VecDeque<Act>,
}

pub(crate) const CLASS: Class = Class { n: 3, r: 0, w: 0 };

impl FakeCluster {
    /// Nodes `a`, `b`, ... with the keyspaces `app` (siblings, collections) and `cache` (lww, keys).
    pub(crate) fn start(nodes_count: u8) -> Self {
        let node = |n| FakeNode { id: NodeId(u64::from(n) + 1), up: true, script: VecDeque::new() };
        let keyspace = |id, name: &str, layout, conflict| KeyspaceInfo {
            id: KeyspaceId(id),
            name: KeyspaceName::new(name).unwrap(),
            spec: KeyspaceSpec { class: CLASS, layout, conflict, quorum: QuorumMode::Strict, ttl_s: None },
        };
        Self(Arc::new(Mutex::new(World {
            nodes: (0..nodes_count).map(|n| (name_of(n), node(n))).collect(),
            objects: BTreeMap::new(),
            keyspaces: vec![
                keyspace(1, "app", KeyspaceLayout::Collection, Conflict::Siblings),
                keyspace(2, "cache", KeyspaceLayout::Key, Conflict::Lww),
            ],
            sessions: 0,
            expired: Vec::new(),
            holder: None,
            log: Vec::new(),
            dials: Vec::new(),
        })))
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        locked(&self.0).nodes.keys().cloned().collect()
    }

    pub(crate) fn dial(&self) -> Arc<dyn Dial> {
        Arc::new(self.clone())
    }

    /// The node's next data requests, in order; after them it answers again.
    pub(crate) fn script(&self, node: &str, acts: &[Act]) {
        locked(&self.0).nodes.get_mut(node).unwrap().script.extend(acts.iter().cloned());
    }

    /// Whether connections to the node can be had from now on.
    pub(crate) fn set_up(&self, node: &str, up: bool) {
        locked(&self.0).nodes.get_mut(node).unwrap().up = up;
    }

    /// From now on no node accepts this session.
    pub(crate) fn expire(&self, actor: Actor) {
        locked(&self.0).expired.push(actor);
    }

    /// Lets the routes name this node (counted from 0) as the only replica of everything.
    pub(crate) fn set_holder(&self, node: u16) {
        locked(&self.0).holder = Some(node);
    }

    /// Data requests so far, with the node that got them.
    pub(crate) fn log(&self) -> Vec<(String, ClientRequest)> {
        locked(&self.0).log.clone()
    }

    /// Connections asked for so far.
    pub(crate) fn dials(&self) -> Vec<String> {
        locked(&self.0).dials.clone()
    }

    async fn serve(self, name: String, mut stream: DuplexStream) -> Option<()> {
        let mut frames = FrameReader::new(CLIENT_FRAME_BYTES_MAX);
        let hello = next(&mut stream, &mut frames).await?;
        let hello: ClientHello = codec::decode(&hello.body).unwrap();
        let welcome = self.welcome(&name, &hello);
        let mut out = BytesMut::new();
        match &welcome {
            Ok(welcome) => write_frame(&mut out, FrameKind::Welcome, RequestId(0), |b| codec::encode_to(welcome, b)),
            Err(error) => write_frame(&mut out, FrameKind::Goodbye, RequestId(0), |b| codec::encode_to(error, b)),
        }
        stream.write_all(&out).await.ok()?;
        let session = welcome.ok()?.session.actor;
        loop {
            let frame = next(&mut stream, &mut frames).await?;
            assert_eq!(frame.kind, FrameKind::Request);
            let call: ClientCall = codec::decode(&frame.body).unwrap();
            assert!(call.deadline_ms > 0);
            let act = self.next_act(&name, &call.request);
            let answer = match act {
                Act::Answer => self.answer(session, call.request),
                Act::ApplyThenDrop => {
                    let _unheard = self.answer(session, call.request);
                    return None;
                }
                Act::DropBefore => return None,
                Act::ApplyThenSilence => {
                    let _unheard = self.answer(session, call.request);
                    continue;
                }
                Act::Say(error) => Err(error),
                Act::ApplyThenSay(error) => {
                    let _unheard = self.answer(session, call.request);
                    Err(error)
                }
            };
            let mut out = BytesMut::new();
            write_frame(&mut out, FrameKind::Response, frame.request, |b| codec::encode_to(&answer, b));
            stream.write_all(&out).await.ok()?;
        }
    }

    fn next_act(&self, name: &str, request: &ClientRequest) -> Act {
        if !is_data(request) {
            return Act::Answer;
        }
        let mut world = locked(&self.0);
        world.log.push((name.into(), request.clone()));
        world.nodes.get_mut(name).unwrap().script.pop_front().unwrap_or(Act::Answer)
    }

    fn welcome(&self, name: &str, hello: &ClientHello) -> Result<Welcome, RequestError> {
        let mut world = locked(&self.0);
        let session = match hello.session {
            Some(grant) if world.expired.contains(&grant.actor) => return Err(RequestError::SessionExpired),
            Some(grant) => grant,
            None => {
                world.sessions += 1;
                SessionGrant { actor: Actor::session(u16::MAX, world.sessions), mac: [7; 16] }
            }
        };
        let node = world.nodes[name].id;
        Ok(Welcome { version: 1, cluster: ClusterId(1), node, session, wall: WallTime(0) })
    }

    fn answer(&self, session: Actor, request: ClientRequest) -> Result<ClientResponse, RequestError> {
        let mut world = locked(&self.0);
        match request {
            ClientRequest::Get(get) => {
                let object = world.objects.get(&get.place).cloned().unwrap_or_default();
                if let Some(min) = &get.min_ctx {
                    assert!(object.context().covers_all(&min.open(&keys(), &get.place).unwrap()));
                }
                let context = seal(&get.place, object.context());
                Ok(ClientResponse::Got(Got { object: object.encode(), context, replies: 2, weak: false }))
            }
            ClientRequest::Write(write) => {
                let delta = Object::decode(&write.delta).unwrap();
                let mut presented = Context::default();
                for context in &write.contexts {
                    presented.join(&context.open(&keys(), &write.place).unwrap());
                }
                delta.authored_by(session, &presented).unwrap();
                world.objects.entry(write.place.clone()).or_default().merge_into(&delta);
                Ok(written(&write.place, &delta))
            }
            // Minting is the node's part; here it only has to be counted.
            ClientRequest::Operate(operate) => Ok(written(&operate.place, &Object::default())),
            ClientRequest::Scan(scan) => Ok(ClientResponse::Page(world.page(&scan))),
            ClientRequest::Batch(requests) => {
                drop(world);
                Ok(ClientResponse::Batch(requests.into_iter().map(|r| self.answer(session, r)).collect()))
            }
            ClientRequest::ShowKeyspace { name } => {
                let found = world.keyspaces.iter().find(|info| info.name == name).cloned();
                found.map(ClientResponse::Keyspace).ok_or(RequestError::UnknownKeyspace { name })
            }
            ClientRequest::ListKeyspaces => Ok(ClientResponse::Keyspaces(world.keyspaces.clone())),
            ClientRequest::Routes { .. } => world.routes(),
            ClientRequest::CreateKeyspace { .. }
            | ClientRequest::SetKeyspace { .. }
            | ClientRequest::DropKeyspace { .. }
            | ClientRequest::MemberViews
            | ClientRequest::ChangeLayout(_)
            | ClientRequest::Layouts
            | ClientRequest::Status => Err(RequestError::BadRequest { reason: "not played here".into() }),
        }
    }
}

impl World {
    fn page(&self, scan: &shoal_protocol::client::Scan) -> Page {
        let ScanScope::Collection(collection) = &scan.scope else {
            return Page { rows: Vec::new(), cursor: None, complete: true };
        };
        let after = scan.cursor.clone().unwrap_or_default();
        let inside = |place: &&Place| place.collection == *collection && place.key > after;
        let places: Vec<&Place> = self.objects.keys().filter(inside).collect();
        let limit = scan.limit as usize;
        let row = |place: &&Place| Row {
            collection: place.collection.clone(),
            key: place.key.clone(),
            object: if scan.values { self.objects[*place].encode() } else { bytes::Bytes::new() },
            context: scan.values.then(|| seal(place, self.objects[*place].context())),
        };
        let rows: Vec<Row> = places.iter().take(limit).map(row).collect();
        let cursor = (places.len() > limit).then(|| rows.last().unwrap().key.clone());
        Page { rows, cursor, complete: true }
    }

    fn routes(&self) -> Result<ClientResponse, RequestError> {
        let Some(holder) = self.holder else {
            return Err(RequestError::NotServing { reason: "no routes yet".into() });
        };
        let endpoint = |(name, node): (&String, &FakeNode)| NodeEndpoint {
            node: node.id,
            name: name.clone(),
            zone: String::new(),
            weight: 100,
            addresses: vec![name.clone()],
        };
        let nodes = self.nodes.iter().map(endpoint).collect();
        let preference = vec![vec![holder]; usize::from(PARTITIONS_COUNT)];
        Ok(ClientResponse::Routes(Routes { view: ViewId(1), nodes, preference }))
    }
}

impl Dial for FakeCluster {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            locked(&self.0).dials.push(address.into());
            if !locked(&self.0).nodes.get(address).is_some_and(|node| node.up) {
                return Err(DialError::Unreachable { address: address.into(), reason: "down".into() });
            }
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            tokio::spawn(self.clone().serve(address.into(), theirs));
            let (reader, writer) = tokio::io::split(ours);
            Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
        })
    }
}

async fn next(stream: &mut DuplexStream, frames: &mut FrameReader) -> Option<Frame> {
    loop {
        if let Some(frame) = frames.next_frame().unwrap() {
            return Some(frame);
        }
        if stream.read_buf(frames.buffer()).await.ok()? == 0 {
            return None;
        }
    }
}

fn is_data(request: &ClientRequest) -> bool {
    matches!(
        request,
        ClientRequest::Get(_)
            | ClientRequest::Write(_)
            | ClientRequest::Operate(_)
            | ClientRequest::Scan(_)
            | ClientRequest::Batch(_)
    )
}

fn written(place: &Place, delta: &Object) -> ClientResponse {
    let context = seal(place, delta.context());
    ClientResponse::Written(Written { acks: 2, fallbacks: 0, context, weak: false, hlc: delta.hlc_max() })
}

fn keys() -> ContextKeys {
    ContextKeys(vec![ContextKey { id: 1, key: [1; 32] }])
}

fn seal(place: &Place, context: &Context) -> EncodedContext {
    EncodedContext::seal(&keys(), place, context)
}

fn name_of(n: u8) -> String {
    char::from(b'a' + n).to_string()
}
