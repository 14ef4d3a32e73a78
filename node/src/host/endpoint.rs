//! The one UDP socket, and QUIC over it.
//!
//! What: socket buffers, transport settings, keys that outlive the process. One port carries every ALPN. Source: DESIGN
//! §10; the numbers are measured in the notes on the network unless marked as a guess.
//! Invariant: stateless-reset key and connection-id key depend only on secret and node id. A peer or client that speaks
//! to the restarted process of a killed one is told so with its next packet, instead of waiting for its idle timeout
//! (both keys are needed: quinn drops what does not carry an id of its own before it considers a reset).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};
use shoal_protocol::id::NodeId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::secret::ClusterSecret;
use super::tls::NodeTls;

/// Binds the socket and asks for the buffers that full speed needs. The kernel may grant less; windows follow it.
pub(super) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // Refusals are not errors: a small buffer is slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// QUIC on a bound socket.
pub(super) struct Opened {
    /// Accepts `shoal-peer`, `shoal-gossip` and `shoal`; dials `shoal-peer`.
    pub(super) endpoint: quinn::Endpoint,
    /// Dials `shoal-gossip`.
    pub(super) gossip: quinn::ClientConfig,
}

/// Opens it.
pub(super) fn open(socket: UdpSocket, tls: &NodeTls, secret: &ClusterSecret, node: NodeId) -> io::Result<Opened> {
    let of = node.0.to_be_bytes();
    let mut config = EndpointConfig::new(Arc::new(ResetKey(secret.derive("stateless reset", &of))));
    let connection_ids = secret.derive("connection ids", &of);
    let connection_ids = u64::from_be_bytes(*connection_ids.first_chunk().expect("a key has 32 bytes"));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)));
    config.max_udp_payload_size(MTU_BYTES_MAX).expect("6,500 is above QUIC's least of 1,200");

    let window_bytes = receive_window_bytes(&socket);
    let mut server = quinn::ServerConfig::with_crypto(tls.server.clone());
    let mut to_all = transport(window_bytes, IDLE_SERVER);
    // What is on the other end shows only after the handshake; others than gossip have no use for it.
    to_all.datagram_receive_buffer_size(Some(DATAGRAMS_BYTES_MAX));
    server.transport_config(Arc::new(to_all));
    // A peer that moves dials again, and so do clients; a path that changes under a connection is only an attack surface.
    server.migration(false);
    server.max_incoming(INCOMING_COUNT_MAX);
    server.incoming_buffer_size_total(INCOMING_BYTES_MAX);

    let mut dialer = quinn::ClientConfig::new(tls.peer_client.clone());
    let mut to_peers = transport(window_bytes, IDLE_PEER);
    to_peers.keep_alive_interval(Some(KEEP_ALIVE_PEER));
    dialer.transport_config(Arc::new(to_peers));

    let mut gossip = quinn::ClientConfig::new(tls.gossip_client.clone());
    let mut to_members = transport(window_bytes, IDLE_GOSSIP);
    to_members.datagram_receive_buffer_size(Some(DATAGRAMS_BYTES_MAX));
    to_members.datagram_send_buffer_size(DATAGRAMS_BYTES_MAX);
    gossip.transport_config(Arc::new(to_members));

    let mut endpoint = quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(dialer);
    Ok(Opened { endpoint, gossip })
}

/// What to do with a connection attempt.
pub(super) fn screen(endpoint: &quinn::Endpoint, incoming: quinn::Incoming) -> Option<quinn::Incoming> {
    if endpoint.open_connections() >= CONNECTIONS_COUNT_MAX {
        incoming.refuse();
        None
    } else if endpoint.open_connections() >= RETRY_ABOVE_COUNT && incoming.may_retry() {
        // The sender must prove its address before this node spends a handshake on it. It comes back at once.
        let _ = incoming.retry();
        None
    } else {
        Some(incoming)
    }
}

fn transport(window_bytes: u32, idle: Duration) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS));
    let mut transport = TransportConfig::default();
    transport.enable_segmentation_offload(true);
    transport.mtu_discovery_config(Some(mtu));
    transport.ack_frequency_config(Some(acks));
    transport.congestion_controller_factory(Arc::new(congestion));
    transport.initial_rtt(INITIAL_RTT);
    transport.stream_receive_window(VarInt::from_u32(window_bytes));
    transport.receive_window(VarInt::from_u32(window_bytes));
    transport.send_window(u64::from(WINDOW_BYTES_MAX));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_COUNT_MAX));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    transport.max_idle_timeout(Some(idle.try_into().expect("seconds fit QUIC's milliseconds")));
    transport
}

/// Three quarters of what the kernel buffers: beyond it a burst is dropped, and every drop costs a round trip.
fn receive_window_bytes(socket: &UdpSocket) -> u32 {
    // Linux reports twice what was granted, to account for its own overhead.
    let granted = SockRef::from(socket).recv_buffer_size().unwrap_or(0) / 2;
    u32::try_from(granted / 4 * 3).unwrap_or(u32::MAX).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
}

/// Keyed blake3 as the authenticator of stateless-reset tokens.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // `Hash` compares in constant time.
        let found = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        if blake3::keyed_hash(&self.0, data) == found { Ok(()) } else { Err(CryptoError) }
    }
}

/// Asked of the kernel for each direction, bytes: the largest `rmem_max` met in the field without tuning.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// UDP payload up to which paths are probed. A GSO batch is ten of them and must stay below 65,507 or vanishes silently.
const MTU_BYTES_MAX: u16 = 6_500;
/// First congestion window, bytes: ten packets (RFC 9002 §7.2) of the largest size. With ten of the smallest, a single probe
/// of the path's MTU nearly fills it, and everything else waits a round trip, a close even for ever.
const INITIAL_WINDOW_BYTES: u64 = 10 * MTU_BYTES_MAX as u64;
/// Assumed before the first measurement: a lost first packet is repeated after three times this. Guess for one region; QUIC's
/// own 333 ms make a node that was just restarted wait a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Most packets received before an acknowledgement: -18 % CPU on small messages against QUIC's 2.
const ACK_EVERY_PACKETS: u32 = 10;
/// Receive window, bytes: not above what was measured without loss...
const WINDOW_BYTES_MAX: u32 = 3 << 20;
/// ... and not below what an untuned kernel (208 KiB of socket buffer) absorbs.
const WINDOW_BYTES_MIN: u32 = 128 << 10;
/// Streams a peer or client may open: one carries everything.
const STREAMS_COUNT_MAX: u32 = 1;
/// Silence after which an incoming connection is dead. Clients may rest; they choose a shorter time by their own settings.
const IDLE_SERVER: Duration = Duration::from_secs(30);
/// Silence after which a connection to a peer is dead; guess: a few lost keep-alives, to be tuned with SWIM.
const IDLE_PEER: Duration = Duration::from_secs(4);
/// Silence after which a connection for gossip is closed: it is opened again when there is something to say. Guess: in a
/// cluster of up to 30 members everybody speaks to everybody more often than this.
const IDLE_GOSSIP: Duration = Duration::from_secs(30);
/// Datagrams kept per connection for a reader or a path that is behind, bytes; older ones make room. Guess: some packets.
const DATAGRAMS_BYTES_MAX: usize = 64 << 10;
/// How often the dialing side speaks when it has nothing to say.
const KEEP_ALIVE_PEER: Duration = Duration::from_secs(1);
/// Handshakes waiting for this node, and bytes held for them; guess, far above a cluster of 50 nodes starting at once.
const INCOMING_COUNT_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 16 << 20;
/// Connections beyond which a sender must prove its address first; guess.
const RETRY_ABOVE_COUNT: usize = 256;
/// Connections beyond which new ones are refused: at about 100 KiB each this is 1 GiB; guess.
const CONNECTIONS_COUNT_MAX: usize = 10_000;
