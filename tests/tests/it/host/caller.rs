//! A caller that speaks to a node frame by frame, rightly or wrongly.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use quinn::{
    ApplicationClose, ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
    WriteError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_node::host::config::ServerConfig;
use shoal_node::host::limits::{LinkLimits, ServerLimits};
use shoal_node::host::secret::{ClusterSecret, ClusterSecrets};
use shoal_node::host::tls::{ALPN_CLIENT, ALPN_GOSSIP, ALPN_PEER, ClusterCa, NODE_SERVER_NAME, Role, client_config};
use shoal_node::host::{RunningServer, Server};
use shoal_node::system::JoinMode;
use shoal_protocol::client::{
    ClientCall, ClientHello, ClientRequest, ClientResponse, PROTOCOL_VERSIONS, Status, Welcome,
};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{Frame, FrameKind, FrameReader, PEER_FRAME_BYTES_MAX, write_frame};
use shoal_protocol::id::{Actor, ClusterId, NodeId, RequestId, ViewId};
use shoal_protocol::member::{Member, StoreLease};
use shoal_protocol::peer::PeerHello;

pub(super) fn secret(byte: u8) -> ClusterSecret {
    ClusterSecret::new([byte; 32])
}

/// A node that founds a cluster of its own, on a free port.
pub(super) fn config(data_dir: &Path, name: &str) -> ServerConfig {
    ServerConfig {
        data_dir: data_dir.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        name: name.to_owned(),
        zone: "zone".to_owned(),
        weight: 100,
        cluster: "test".to_owned(),
        cluster_id: None,
        secrets: Some(ClusterSecrets::one(secret(1))),
        seeds: Vec::new(),
        expect: 1,
        join: JoinMode::Auto,
        found_alone: true,
        advertise_peer: Vec::new(),
        advertise_client: Vec::new(),
        stores: None,
        limits: ServerLimits::default(),
    }
}

/// Starts a node and waits until it serves.
pub(super) async fn serving(config: ServerConfig) -> RunningServer {
    let server = Server::start(config).await.unwrap();
    assert!(server.serves().await);
    server
}

/// A lone server and its data.
pub(super) struct Lone {
    pub(super) server: RunningServer,
    _data: tempfile::TempDir,
}

impl Lone {
    pub(super) async fn start() -> Self {
        Self::start_with(LinkLimits::default()).await
    }

    pub(super) async fn start_with(link: LinkLimits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let limits = ServerLimits { link, ..ServerLimits::default() };
        let server = serving(ServerConfig { limits, ..config(data.path(), "a") }).await;
        Self { server, _data: data }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.facts().local_address
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.server.facts().cluster
    }

    /// Shows that the node still serves others.
    pub(super) async fn goes_on(&self) {
        let mut caller = Caller::client(self.address()).await;
        assert_eq!(caller.status().await.node, self.server.facts().node);
    }
}

/// One connection with one stream.
pub(super) struct Caller {
    _endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    frames: FrameReader,
    /// By `try_ask`.
    asked_count: u64,
}

impl Caller {
    /// Shows no certificate, one of the role given, or one of another cluster.
    pub(super) async fn dial(
        address: SocketAddr,
        alpn: &[u8],
        trusted: &ClusterSecret,
        role: Option<(ClusterSecret, Role)>,
    ) -> Result<Self, ConnectionError> {
        let own = role.map(|(secret, role)| ClusterCa::derive(&secret).unwrap().issue(role).unwrap());
        let tls = client_config(&[ClusterCa::derive(trusted).unwrap()], own, alpn).unwrap();
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let mut transport = TransportConfig::default();
        // What it does not read must not fill its socket's buffer: a close would be lost in that.
        transport.stream_receive_window(WINDOW_BYTES.into());
        let mut config = ClientConfig::new(tls);
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(address, NODE_SERVER_NAME).unwrap().await?;
        let (send, receive) = connection.open_bi().await?;
        let frames = FrameReader::new(PEER_FRAME_BYTES_MAX);
        Ok(Self { _endpoint: endpoint, connection, send, receive, frames, asked_count: 0 })
    }

    /// A stranger with the right trust, before any hello.
    pub(super) async fn stranger(address: SocketAddr) -> Self {
        Self::dial(address, ALPN_CLIENT, &secret(1), None).await.unwrap()
    }

    /// A client, welcomed.
    pub(super) async fn client(address: SocketAddr) -> Self {
        let mut caller = Self::stranger(address).await;
        caller.say(FrameKind::Hello, 0, &client_hello(PROTOCOL_VERSIONS)).await;
        let _: Welcome = caller.hear(FrameKind::Welcome).await;
        caller
    }

    /// Somebody at the nodes' door.
    pub(super) async fn peer(address: SocketAddr, role: Option<Role>) -> Self {
        Self::dial(address, ALPN_PEER, &secret(1), role.map(|role| (secret(1), role))).await.unwrap()
    }

    /// Somebody at the door of gossip.
    pub(super) async fn gossip(address: SocketAddr, role: Option<Role>) -> Self {
        Self::dial(address, ALPN_GOSSIP, &secret(1), role.map(|role| (secret(1), role))).await.unwrap()
    }

    pub(super) fn datagram(&self, bytes: &[u8]) {
        self.connection.send_datagram(bytes.to_vec().into()).unwrap();
    }

    pub(super) async fn say<T: Serialize>(&mut self, kind: FrameKind, request: u64, body: &T) {
        let mut out = BytesMut::new();
        write_frame(&mut out, kind, RequestId(request), |out| codec::encode_to(body, out));
        self.say_bytes(&out).await;
    }

    pub(super) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// A whole frame with any body.
    pub(super) async fn say_body(&mut self, kind: FrameKind, request: u64, body: &[u8]) {
        let mut out = BytesMut::new();
        write_frame(&mut out, kind, RequestId(request), |out| out.put_slice(body));
        self.say_bytes(&out).await;
    }

    /// Asks, unless the node has closed the connection: how it did.
    pub(super) async fn try_ask(&mut self, asked: ClientRequest) -> Result<(), ApplicationClose> {
        self.asked_count += 1;
        let mut out = BytesMut::new();
        let call = ClientCall { deadline_ms: 5_000, request: asked };
        write_frame(&mut out, FrameKind::Request, RequestId(self.asked_count), |out| codec::encode_to(&call, out));
        match self.send.write_all(&out).await {
            Ok(()) => Ok(()),
            Err(WriteError::ConnectionLost(ConnectionError::ApplicationClosed(close))) => Err(close),
            Err(other) => panic!("not closed by the node: {other:?}"),
        }
    }

    pub(super) async fn ask(&mut self, request: u64, asked: ClientRequest) {
        self.say(FrameKind::Request, request, &ClientCall { deadline_ms: 5_000, request: asked }).await;
    }

    /// Asks for the status under several ids, in one write: the node meets all of them in one read.
    pub(super) async fn ask_at_once(&mut self, requests: &[u64]) {
        let mut out = BytesMut::new();
        let call = ClientCall { deadline_ms: 5_000, request: ClientRequest::Status };
        for request in requests {
            write_frame(&mut out, FrameKind::Request, RequestId(*request), |out| codec::encode_to(&call, out));
        }
        self.say_bytes(&out).await;
    }

    pub(super) async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return frame;
            }
            let chunk = self.receive.read_chunk(64 << 10, true).await.unwrap().expect("a frame before the end");
            self.frames.buffer().extend_from_slice(&chunk.bytes);
        }
    }

    pub(super) async fn hear<T: DeserializeOwned>(&mut self, kind: FrameKind) -> T {
        let frame = self.frame().await;
        assert_eq!(frame.kind, kind);
        codec::decode(&frame.body).unwrap()
    }

    pub(super) async fn goodbye(&mut self) -> RequestError {
        let goodbye = self.hear(FrameKind::Goodbye).await;
        assert!(self.receive.read_chunk(1, true).await.unwrap().is_none(), "nothing follows a goodbye");
        goodbye
    }

    /// Whether the node ends the connection without a word.
    pub(super) async fn is_cut_off(&mut self) -> bool {
        self.receive.read_chunk(1, true).await.is_err()
    }

    pub(super) async fn answer(&mut self) -> (u64, Result<ClientResponse, RequestError>) {
        let frame = self.frame().await;
        assert_eq!(frame.kind, FrameKind::Response);
        (frame.request.0, codec::decode(&frame.body).unwrap())
    }

    pub(super) async fn status(&mut self) -> Status {
        self.ask(99, ClientRequest::Status).await;
        match self.answer().await {
            (99, Ok(ClientResponse::Status(status))) => status,
            other => panic!("not a status: {other:?}"),
        }
    }
}

pub(super) fn client_hello(versions: (u16, u16)) -> ClientHello {
    ClientHello { versions, session: None, access_token: None, software: "test".to_owned() }
}

pub(super) fn peer_hello(cluster: ClusterId, node: NodeId) -> PeerHello {
    PeerHello {
        versions: PROTOCOL_VERSIONS,
        cluster,
        member: Member {
            node,
            name: "b".to_owned(),
            zone: "zone".to_owned(),
            weight: 100,
            advertise_peer: Vec::new(),
            advertise_client: Vec::new(),
            version: "test".to_owned(),
            stores: vec![StoreLease { incarnation: Actor::incarnation(1), lease_end: 0 }],
            boot_nonce: 1,
            layouts: Vec::new(),
        },
        view: ViewId(0),
    }
}

const WINDOW_BYTES: u32 = 32 << 10;
