//! Certificates: who may speak which protocol.
//!
//! What: the cluster CA (an Ed25519 key derived from the cluster secret, so every node computes the same certificate),
//! the certificate each node issues for itself at start, and the TLS configurations made of them.
//! Shape: a certificate's role and id are DNS names in its SAN: `node.shoal.internal` and
//! `<node id>.node.shoal.internal`, or `client.shoal.internal`. The chain sent is [leaf, CA], so that a client that pins
//! the CA's sha256 needs nothing else. Dates are 1975 to 4096: they mean nothing, the secret decides. Source: DESIGN §11.
//! Invariant: TLS asks for a client certificate but does not insist; whoever serves `shoal-peer` insists (`PeerIdentity`).

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, TransportErrorCode};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CipherSuite, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sha2::{Digest, Sha256};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::NodeId;

use super::secret::{ClusterSecret, ClusterSecrets};

/// What a certificate entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To be this node: to serve, and to speak to its peers.
    Node(NodeId),
    /// To be a client. It never opens `shoal-peer`.
    Client,
}

/// The TLS material could not be made. Only a fault in this program or its libraries can cause it.
#[derive(Debug, thiserror::Error)]
#[error("cannot make certificates: {reason}")]
pub struct TlsError {
    reason: String,
}

impl TlsError {
    fn new(reason: impl ToString) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// A certificate with its key.
pub struct Issued {
    /// Leaf, then CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// The cluster's certificate authority.
pub struct ClusterCa {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// The CA of this secret: the same bytes wherever it is computed.
    ///
    /// # Errors
    /// `TlsError`, see there.
    pub fn derive(secret: &ClusterSecret) -> Result<Self, TlsError> {
        let mut pkcs8 = ED25519_PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(&secret.derive("ca ed25519 seed", &[]));
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)
            .map_err(TlsError::new)?;
        let mut params = named("Shoal cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(TlsError::new)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Issues a certificate with a fresh key.
    ///
    /// # Errors
    /// `TlsError`, see there.
    pub fn issue(&self, role: Role) -> Result<Issued, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::new)?;
        let mut params = named(&own_name(role));
        let names = match role {
            Role::Node(_) => vec![own_name(role), NODE_SERVER_NAME.to_owned()],
            Role::Client => vec![own_name(role)],
        };
        params.subject_alt_names = CertificateParams::new(names).map_err(TlsError::new)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role != Role::Client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(TlsError::new)?.der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(Issued { chain: vec![leaf, self.certificate.clone()], key })
    }

    /// What clients pin: `sha256:` and the hex of the certificate's SHA-256.
    #[must_use]
    pub fn pin(&self) -> String {
        let digest = Sha256::digest(&self.certificate);
        digest.iter().fold("sha256:".to_owned(), |pin, byte| format!("{pin}{byte:02x}"))
    }
}

/// The TLS sides of one node.
pub(super) struct NodeTls {
    /// For all ALPNs; client certificates are checked when shown.
    pub(super) server: Arc<QuicServerConfig>,
    /// For dialing peers.
    pub(super) peer_client: Arc<QuicClientConfig>,
    /// For gossip with them.
    pub(super) gossip_client: Arc<QuicClientConfig>,
    /// What clients pin.
    pub(super) ca_pin: String,
}

impl NodeTls {
    /// Issues this node's certificate and makes its configurations.
    pub(super) fn new(secrets: &ClusterSecrets, node: NodeId) -> Result<Self, TlsError> {
        let ca = ClusterCa::derive(secrets.first())?;
        let trusted = secrets.iter().map(ClusterCa::derive).collect::<Result<Vec<_>, _>>()?;
        let issued = ca.issue(Role::Node(node))?;
        let server = server_config(roots(&trusted)?, &issued)?;
        let again = Issued { chain: issued.chain.clone(), key: issued.key.clone_key() };
        let gossip_client = client_config(&trusted, Some(again), ALPN_GOSSIP)?;
        let peer_client = client_config(&trusted, Some(issued), ALPN_PEER)?;
        Ok(Self { server, peer_client, gossip_client, ca_pin: ca.pin() })
    }
}

/// The certificate at the other end of a connection, whose chain TLS has verified.
pub(super) struct PeerIdentity(Option<CertificateDer<'static>>);

impl PeerIdentity {
    /// Of this connection.
    pub(super) fn of(connection: &quinn::Connection) -> Self {
        let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        Self(chain.and_then(|chain| chain.into_iter().next()))
    }

    /// Checks that the certificate is the node's own.
    ///
    /// # Errors
    /// `Incompatible` when there is none, or it is a client's or another node's.
    pub(super) fn check_node(&self, node: NodeId) -> Result<(), RequestError> {
        let refuse = |reason: String| RequestError::Incompatible { reason };
        let Some(certificate) = &self.0 else { return Err(refuse("nodes must show a certificate".to_owned())) };
        let name = ServerName::try_from(own_name(Role::Node(node))).expect("hex digits and a constant suffix");
        ParsedCertificate::try_from(certificate)
            .and_then(|parsed| verify_server_name(&parsed, &name))
            .map_err(|_| refuse(format!("the certificate is not that of node {node}")))
    }
}

/// Why a connection shows that its two ends do not trust each other; `None` when it ended otherwise.
pub(super) fn untrusted(error: &ConnectionError) -> Option<&'static str> {
    let is_about_certificate = |code: TransportErrorCode| {
        CERTIFICATE_ALERTS.map(|alert| u64::from(TransportErrorCode::crypto(alert))).contains(&u64::from(code))
    };
    if let ConnectionError::TransportError(error) = error
        && is_about_certificate(error.code)
    {
        Some("its certificate is not from this cluster's secret")
    } else if let ConnectionError::ConnectionClosed(close) = error
        && is_about_certificate(close.error_code)
    {
        Some("it says that this node's certificate is not from its cluster's secret")
    } else {
        None
    }
}

/// The TLS side of someone who dials nodes, with or without a certificate to show.
///
/// # Errors
/// `TlsError`, see there.
pub fn client_config(
    trusted: &[ClusterCa],
    own: Option<Issued>,
    alpn: &[u8],
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .with_root_certificates(roots(trusted)?);
    let mut config = match own {
        Some(own) => builder.with_client_auth_cert(own.chain, own.key).map_err(TlsError::new)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(TlsError::new)?))
}

fn roots(trusted: &[ClusterCa]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in trusted {
        roots.add(ca.certificate.clone()).map_err(TlsError::new)?;
    }
    Ok(Arc::new(roots))
}

fn server_config(roots: Arc<RootCertStore>, own: &Issued) -> Result<Arc<QuicServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::new)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(TlsError::new)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_GOSSIP.to_vec(), ALPN_CLIENT.to_vec()];
    // No resumption: a session of minutes to days gains nothing, and a ticket would outlive a withdrawn secret.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(TlsError::new)?))
}

/// ring, TLS 1.3, AES-128 first: it measured fastest (notes on the network), and QUIC needs it for its first packets.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn own_name(role: Role) -> String {
    match role {
        Role::Node(node) => format!("{node}.{NODE_SERVER_NAME}"),
        Role::Client => "client.shoal.internal".to_owned(),
    }
}

/// The name every node's certificate carries: what a dialer who knows no node id asks for.
pub const NODE_SERVER_NAME: &str = "node.shoal.internal";
/// Node to node.
pub const ALPN_PEER: &[u8] = b"shoal-peer/1";
/// Node to node, membership only.
pub const ALPN_GOSSIP: &[u8] = b"shoal-gossip/1";
/// Native client to node.
pub const ALPN_CLIENT: &[u8] = b"shoal/1";

/// bad_certificate, certificate_unknown, unknown_ca and decrypt_error (RFC 8446 §6): a signature by another key of the same
/// name may count as any of them.
const CERTIFICATE_ALERTS: [u8; 4] = [42, 46, 48, 51];
/// PKCS#8 v1 of an Ed25519 key up to its 32-byte seed (RFC 8410 §7).
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

#[cfg(test)]
mod tests {
    use super::*;

    fn ca(byte: u8) -> ClusterCa {
        ClusterCa::derive(&ClusterSecret::new([byte; 32])).unwrap()
    }

    fn identity(issued: &Issued) -> PeerIdentity {
        PeerIdentity(issued.chain.first().cloned())
    }

    #[test]
    fn every_node_derives_the_same_ca() {
        assert_eq!(ca(1).certificate, ca(1).certificate);
        assert_ne!(ca(1).pin(), ca(2).pin());
        // Golden: a change here breaks every pin in the world.
        assert_eq!(ca(1).pin(), "sha256:ae275a2bcbb134c6c5ecf549b9187a2aea1d4d46d2fe14f355a6fb0d2b6da18c");
    }

    #[test]
    fn a_certificate_is_its_own_nodes_and_no_others() {
        let issued = ca(1).issue(Role::Node(NodeId(7))).unwrap();
        assert_eq!(identity(&issued).check_node(NodeId(7)), Ok(()));
        assert!(identity(&issued).check_node(NodeId(8)).is_err());
    }

    #[test]
    fn neither_a_clients_certificate_nor_none_is_a_nodes() {
        let issued = ca(1).issue(Role::Client).unwrap();
        assert!(identity(&issued).check_node(NodeId(7)).is_err());
        assert!(PeerIdentity(None).check_node(NodeId(7)).is_err());
    }

    #[test]
    fn all_secrets_are_trusted_and_the_first_one_issues() {
        let secrets = ClusterSecrets::parse(&format!("{}\n{}", "01".repeat(32), "02".repeat(32))).unwrap();
        let tls = NodeTls::new(&secrets, NodeId(7)).unwrap();
        assert_eq!(tls.ca_pin, ca(1).pin());
    }
}
