//! TLS of the listeners: the certificate and its key, read from files, and again when the files change.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidelog_domain::causes;
use tokio_rustls::TlsAcceptor;

/// What is spoken over TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the file {path} cannot be read ({source}): name one that is there, and may be read")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has no certificate in it.
    #[error("the file {path} has no certificate in PEM form (BEGIN CERTIFICATE)")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// A file has no private key in it.
    #[error(
        "the file {path} has no private key in PEM form (BEGIN PRIVATE KEY) without a passphrase"
    )]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// The certificate and the key cannot be used together.
    #[error(
        "the certificate in {certificate} and the key in {key} cannot be used ({reason}): they are to be of one pair, the certificate \
         of the service first in its file, then those above it"
    )]
    Unfit {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The TLS of the listeners of a process: 1.2 and 1.3, for HTTP/1.1. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    files: Files,
}

/// What is in the two files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.0.certificate.display())
    }
}

impl Tls {
    /// With the certificate chain and the private key in these files, in PEM form.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file and what is wrong with it.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files::read(certificate, key)?;
        let config = files.config(certificate, key)?;
        Ok(Self(Arc::new(Inner {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            current: RwLock::new(Current { config, files }),
        })))
    }

    /// Looks at the files again and again, so often, and takes what is new in them for new connections. What cannot be used is warned
    /// of, and what there was is kept.
    pub async fn watch(self, every: Duration) -> Infallible {
        let mut complaint = None;
        loop {
            tokio::time::sleep(every).await;
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            let found = match looked {
                Ok(Ok(is_new)) => {
                    if is_new {
                        tracing::info!(certificate = %self.0.certificate.display(), "the certificate was renewed");
                    }
                    None
                }
                Ok(Err(error)) => Some(causes(&error)),
                Err(error) => Some(causes(&error)),
            };
            if let Some(reason) = found
                .as_ref()
                .filter(|found| complaint.as_ref() != Some(*found))
            {
                tracing::warn!(
                    reason,
                    "the new certificate cannot be used, and the one before is kept"
                );
            }
            complaint = found;
        }
    }

    /// Takes what is in the files now. Says whether it is new.
    fn look(&self) -> Result<bool, TlsError> {
        let (certificate, key) = (&self.0.certificate, &self.0.key);
        let files = Files::read(certificate, key)?;
        let is_new = self.with(|current| current.files != files);
        if is_new {
            let config = files.config(certificate, key)?;
            let mut current = self
                .0
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *current = Current { config, files };
        }
        Ok(is_new)
    }

    fn with<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        // Nothing panics while it is held.
        let current = self.0.current.read();
        look(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// What takes a connection now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.with(|current| TlsAcceptor::from(Arc::clone(&current.config)))
    }
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Unreadable {
                path: path.to_path_buf(),
                source,
            })
        };
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?,
        })
    }

    fn config(&self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            let path = certificate.to_path_buf();
            return Err(TlsError::NoCertificate { path });
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey {
            path: key.to_path_buf(),
        })?;
        let unfit = |error: rustls::Error| TlsError::Unfit {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            reason: causes(&error),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(unfit)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests;
