//! TLS on both sides of the proxy, for hosts that get keys: an authority that lives as long as the sandbox and signs
//! only for these hosts, and verified connections to the hosts themselves.

use super::dial::describe_io_error;
use super::key_injection::base64_encode;
use super::{Error, TrustRoots};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::wire::ByteStream;

/// Both sides of TLS for the hosts that get keys.
pub(super) struct TlsInterceptor {
    servers: BTreeMap<String, TlsAcceptor>,
    upstream: TlsConnector,
    /// All certificates that programs in the sandbox trust, as PEM.
    pub(super) bundle: Vec<u8>,
}

impl TlsInterceptor {
    /// Creates a new authority and a certificate for each host. The authority's private key is dropped before this
    /// returns.
    pub(super) fn new<'a>(hosts: impl Iterator<Item = &'a String>, roots: TrustRoots) -> Result<Self, Error> {
        let certificates = match roots {
            TrustRoots::System => rustls_native_certs::load_native_certs().certs,
            TrustRoots::Only(der) => der.into_iter().map(CertificateDer::from).collect(),
        };
        let made = |error: rcgen::Error| Error::Tls { why: error.to_string() };
        let mut params = with_wide_validity(CertificateParams::new(Vec::new()).map_err(made)?);
        params.distinguished_name.push(DnType::CommonName, "Forge: this sandbox only");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(made)?).map_err(made)?;
        let mut servers = BTreeMap::new();
        for host in hosts {
            servers.insert(host.clone(), build_acceptor(host, &issuer)?);
        }
        let mut bundle = encode_pem(issuer.der());
        for certificate in &certificates {
            bundle.extend(encode_pem(certificate));
        }
        Ok(Self { servers, upstream: build_connector(certificates)?, bundle })
    }

    /// Accepts a TLS connection from the sandbox in place of `host`.
    pub(super) async fn accept<S: ByteStream>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<server::TlsStream<S>> {
        let acceptor = self.servers.get(host).ok_or(io::ErrorKind::NotFound)?;
        acceptor.accept(stream).await
    }

    /// Connects to the real host and verifies its certificate.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the host name is not valid in a certificate")
        })?;
        self.upstream.connect(name, stream).await
    }
}

fn build_acceptor(host: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> Result<TlsAcceptor, Error> {
    let made = |error: rcgen::Error| Error::Tls { why: error.to_string() };
    let mut params = with_wide_validity(CertificateParams::new(vec![host.to_owned()]).map_err(made)?);
    params.distinguished_name.push(DnType::CommonName, "Forge: a host with a key");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(made)?;
    let certificate = params.signed_by(&key, issuer).map_err(made)?;
    let chain = vec![certificate.der().clone(), issuer.der().clone()];
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .map_err(tls_error)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn build_connector(roots: Vec<CertificateDer<'static>>) -> Result<TlsConnector, Error> {
    let mut store = RootCertStore::empty();
    // Some systems have unparsable roots; the others are used.
    store.add_parsable_certificates(roots);
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[expect(clippy::needless_pass_by_value, reason = "it is used in map_err")]
fn tls_error(error: rustls::Error) -> Error {
    Error::Tls { why: error.to_string() }
}

fn crypto_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes a certificate valid regardless of clocks. Its effective end is the loss of its key together with the sandbox.
fn with_wide_validity(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

/// Describes why TLS with a host failed.
pub(super) fn describe_tls_error(error: &io::Error) -> String {
    use rustls::CertificateError as Bad;
    let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return describe_io_error(error);
    };
    match inner {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "its certificate is not signed by an authority that this machine trusts".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is a CA certificate; a host needs one with CA:FALSE".to_owned()
        }
        other => other.to_string(),
    }
}

/// Encodes a certificate as PEM (RFC 7468).
fn encode_pem(der: &CertificateDer<'_>) -> Vec<u8> {
    let mut out = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in base64_encode(der).as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END CERTIFICATE-----\n");
    out
}
