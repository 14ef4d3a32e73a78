//! Real QUIC on loopback: who is trusted, and that bytes come through.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Ca {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn pin(&self) -> CaPin {
        CaPin(Sha256::digest(&self.der).into())
    }

    /// A node with a certificate for `name` that echoes the first stream, and shows `shown` behind its certificate.
    fn serve(&self, name: &str, shown: &[&Self]) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let chain = std::iter::once(leaf).chain(shown.iter().map(|ca| ca.der.clone())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let Ok((mut send, mut receive)) = connection.accept_bi().await else { continue };
                let mut five = [0; 5];
                receive.read_exact(&mut five).await.unwrap();
                send.write_all(&five).await.unwrap();
                connection.closed().await;
            }
        });
        address
    }
}

async fn dial(pin: CaPin, to: SocketAddr) -> Result<Stream, DialError> {
    QuicDial::new(pin).unwrap().dial(&to.to_string()).await
}

#[tokio::test]
async fn a_node_of_the_pinned_ca_is_trusted_and_bytes_come_through() {
    let ca = Ca::new();
    let mut stream = dial(ca.pin(), ca.serve(NODE_SERVER_NAME, &[&ca])).await.unwrap();
    stream.writer.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.reader.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn foreign_nodes_clients_certificates_and_borrowed_cas_are_not_trusted() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    for to in [
        theirs.serve(NODE_SERVER_NAME, &[&theirs]),
        theirs.serve(NODE_SERVER_NAME, &[&theirs, &ours]),
        theirs.serve(NODE_SERVER_NAME, &[&ours]),
        ours.serve("client.shoal.internal", &[&ours]),
        ours.serve(NODE_SERVER_NAME, &[]),
    ] {
        let error = dial(ours.pin(), to).await.err().expect("not trusted");
        assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_does_not_resolve_is_unreachable() {
    let dial = QuicDial::new(CaPin([0; 32])).unwrap();
    let error = dial.dial("127.0.0.1:port").await.err().expect("nobody");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
}
