//! Trust by pin: the server's chain must hold the CA whose hash the URL names, and that CA must have signed the node.
//!
//! Shape: nodes send [leaf, CA]; the CA is found by SHA-256, then the ordinary verifier runs with it as the only root and
//! the name every node's certificate carries. Dates mean nothing here: certificates are made to outlive everyone, the
//! cluster secret decides (DESIGN §11).

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::url::CaPin;

/// Accepts nodes of one cluster.
#[derive(Debug)]
pub(super) struct PinnedCa {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    pub(super) const fn new(pin: CaPin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        Sha256::digest(certificate.as_ref())[..] == self.pin.0
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates.iter().find(|certificate| self.is_pinned(certificate));
        let ca = ca.ok_or_else(|| Error::General(UNTRUSTED.into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The name every node's certificate carries, and no client's.
pub(super) const NODE_SERVER_NAME: &str = "node.shoal.internal";
/// Our verifier's word for a foreign node.
pub(super) const UNTRUSTED: &str = "the pinned CA is not in the node's certificate chain";
