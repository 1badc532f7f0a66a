//! HTTPS to a running process: whom the command line trusts.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::settings::Settings;

type Failure = Box<dyn Error>;

/// What connects to a process that shows a certificate of a public authority, of `tls_ca`, or that of `tls_cert` itself.
///
/// # Errors
///
/// A file that cannot be read, or that has no certificate, by its name.
pub(super) fn connector(settings: &Settings) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for file in settings.tls_ca.iter().chain(&settings.tls_cert) {
        trust(&mut roots, file).map_err(|error| {
            format!(
                "the certificates in {} cannot be used: {error}",
                file.display()
            )
        })?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn trust(roots: &mut RootCertStore, file: &Path) -> Result<(), Failure> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before {
        return Err("there is none in PEM form (BEGIN CERTIFICATE)".into());
    }
    Ok(())
}

/// Whom a certificate at `address` has to be for. An address of all interfaces is nobody's name.
///
/// # Errors
///
/// It is no name.
pub(super) fn name(address: &str) -> Result<ServerName<'static>, Failure> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_any = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    let name = if is_any { "localhost" } else { host };
    Ok(ServerName::try_from(name.to_owned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_to_be_for_the_host_that_is_asked() {
        for (address, expected) in [
            ("127.0.0.1:5050", "127.0.0.1"),
            ("[::1]:5050", "::1"),
            ("admin.example:5050", "admin.example"),
            ("0.0.0.0:5050", "localhost"),
            ("[::]:5050", "localhost"),
        ] {
            assert_eq!(name(address).unwrap().to_str(), expected);
        }
        assert!(name("a b:1").is_err());
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = Settings {
            tls_ca: Some(file.path().to_path_buf()),
            ..Settings::default()
        };
        let error = connector(&settings).err().unwrap().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }
}
