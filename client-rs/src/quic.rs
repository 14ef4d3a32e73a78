//! QUIC: streams to nodes over UDP, with the cluster's CA pinned.
//!
//! Shape: one endpoint per address family, made when first needed; every dial resolves the name again and tries every
//! address it has, since addresses move; one bidirectional stream per connection carries everything (DESIGN §10).
//! Source of the transport settings: notes on storage and network (MTU, windows, idle time).

mod pin;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

use crate::error::Error;
use crate::transport::{Dial, DialError, Dialing, Stream, locked};
use crate::url::CaPin;
use pin::{NODE_SERVER_NAME, PinnedCa};

/// Dials nodes over QUIC.
pub(crate) struct QuicDial {
    config: ClientConfig,
    endpoints: Mutex<Endpoints>,
}

#[derive(Default)]
struct Endpoints {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl QuicDial {
    /// Trusts the cluster whose CA has this hash, and nobody else.
    pub(crate) fn new(ca: CaPin) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Config { reason: format!("cannot set up TLS: {error}") };
        let provider = provider();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCa::new(ca, provider)))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = QuicClientConfig::try_from(tls).map_err(|error| wrong(&error))?;
        let mut config = ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport()));
        Ok(Self { config, endpoints: Mutex::default() })
    }

    fn endpoint(&self, to: SocketAddr) -> std::io::Result<Endpoint> {
        let mut endpoints = locked(&self.endpoints);
        let (slot, any): (_, SocketAddr) = match to {
            SocketAddr::V4(_) => (&mut endpoints.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&mut endpoints.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::client(any)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    async fn dial_at(&self, address: &str) -> Result<Stream, DialError> {
        let unreachable = |reason: String| DialError::Unreachable { address: address.into(), reason };
        let resolved = tokio::net::lookup_host(address).await.map_err(|error| unreachable(error.to_string()))?;
        let mut last = unreachable("the name has no address".into());
        for to in resolved {
            match self.connect(to).await {
                Ok(connection) => {
                    let (writer, reader) =
                        connection.open_bi().await.map_err(|error| unreachable(error.to_string()))?;
                    return Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) });
                }
                Err(error) if is_untrusted(&error) => {
                    last = DialError::Untrusted { address: address.into(), reason: error };
                }
                Err(error) => last = unreachable(error),
            }
        }
        Err(last)
    }

    async fn connect(&self, to: SocketAddr) -> Result<Connection, String> {
        let endpoint = self.endpoint(to).map_err(|error| error.to_string())?;
        let connecting = endpoint.connect_with(self.config.clone(), to, NODE_SERVER_NAME);
        connecting.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())
    }
}

impl Dial for QuicDial {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(self.dial_at(address))
    }
}

/// Whether the handshake failed because of the certificate: our verifier's words travel in the connection's error.
fn is_untrusted(reason: &str) -> bool {
    reason.contains(pin::UNTRUSTED) || reason.contains("invalid peer certificate")
}

/// ring, TLS 1.3, AES-128 first: what nodes prefer too.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}

/// What native clients speak (DESIGN §10).
const ALPN: &[u8] = b"shoal/1";
/// A probe of `MTU_MAX` nearly fills quinn's own first window of 12 kB, and a close that queues behind it was seen to be lost.
const INITIAL_WINDOW_BYTES: u64 = 65_000;
/// A handshake packet that was lost is repeated after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Above it GSO batches were seen to vanish silently.
const MTU_MAX: u16 = 6_500;
/// Keeps address translations open and finds dead paths.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A silent path is given up after this; a restarted node says so itself, at once.
const IDLE_MS_MAX: u32 = 10_000;
/// Bytes a node may have under way to this client: a page of values at a long round trip.
const WINDOW_BYTES: u32 = 8 << 20;

#[cfg(test)]
mod tests;
