//! TLS as libpq's sslmodes mean it, with rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{ConnectSettings, PostgresError, SslMode};
use crate::storage::read_small;
use crate::types::Chain;

/// Most bytes of a file of roots: many times what a system trusts in all.
const MAX_ROOTS_BYTES: u64 = 4 << 20;

/// What makes the TLS of a connection.
///
/// # Errors
/// [`PostgresError::Settings`] for roots that cannot be read.
pub(super) fn connector(settings: &ConnectSettings) -> Result<MakeRustlsConnect, PostgresError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let roots_given = settings.ssl_root_cert.as_deref();
    let check = match settings.ssl_mode {
        SslMode::Disable | SslMode::Prefer => Check::Nothing,
        // As libpq does: with a root at hand, `require` means `verify-ca`.
        SslMode::Require if roots_given.is_none() => Check::Nothing,
        SslMode::Require | SslMode::VerifyCa => Check::Root(webpki(roots_given, provider.clone())?),
        SslMode::VerifyFull => Check::All(webpki(roots_given, provider.clone())?),
    };
    let verifier = Arc::new(Verifier { check, provider });
    Ok(MakeRustlsConnect::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

fn webpki(
    roots_given: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, PostgresError> {
    let mut roots = RootCertStore::empty();
    match roots_given {
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| wrong(format!("sslrootcert {}: {error}", path.display()));
            let pem = read_small(path, MAX_ROOTS_BYTES).map_err(|e| unreadable(&Chain(&e)))?;
            let pem = pem.ok_or_else(|| unreadable(&"there is no such file"))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| wrong(format!("there is no root certificate to trust: {error}")))
}

fn wrong(reason: String) -> PostgresError {
    PostgresError::Settings { reason }
}

/// What is at fault where a connection failed for its TLS, and what to do; `None` where it failed for something else.
pub(super) fn fault_of(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    let of_rustls = |cause: &(dyn std::error::Error + 'static)| {
        // What an I/O error wraps is none of its sources.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        inner.map_or_else(|| cause.downcast_ref(), |inner| inner.downcast_ref()).cloned()
    };
    if let Some(error) = causes.clone().find_map(of_rustls) {
        return Some(match error {
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => ": the server's certificate is not for this host name; connect by a name that it is for",
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                ": the server's certificate comes from no root that is trusted here; name its root by sslrootcert"
            }
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => ": the server's certificate has expired or is not valid yet",
            _ => ": TLS failed; check sslmode, sslrootcert and the server's certificate",
        });
    }
    let lacks_tls = |cause: &(dyn std::error::Error + 'static)| cause.to_string() == "server does not support TLS";
    causes.any(lacks_tls).then_some(": the server has no TLS; turn ssl on there, or choose another sslmode")
}

/// How much of a certificate is looked at.
#[derive(Debug)]
enum Check {
    Nothing,
    Root(Arc<WebPkiServerVerifier>),
    All(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.check {
            Check::Nothing => Ok(ServerCertVerified::assertion()),
            Check::All(webpki) => webpki.verify_server_cert(certificate, intermediates, name, ocsp, now),
            // The name is what webpki looks at last, so a certificate that fails by it alone is from a trusted root.
            Check::Root(webpki) => match webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_without_an_end_are_not_read() {
        for file in ["/dev/zero", "/dev/null", "/nowhere/roots.pem"] {
            let url = format!("postgres://me@h/x?sslmode=require&sslrootcert={file}");
            let refused = connector(&ConnectSettings::from_url(&url).unwrap()).err().map(|error| error.to_string());
            assert!(refused.as_ref().is_some_and(|text| text.contains(file)), "{refused:?}");
        }
    }
}
