//! TLS of the listeners of a process.

use std::path::Path;
use std::time::Duration;

use tidelog_http::Tls;

use super::StartError;
use crate::settings::{InvalidSettings, Settings, flag, variable};

/// How often the files are looked at for a new certificate.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The TLS that the settings name; `None` where they name none.
///
/// # Errors
///
/// [`StartError`]: one setting is there without the other, or what is in the files cannot be used.
pub(super) fn open(settings: &Settings) -> Result<Option<Tls>, StartError> {
    let Some((certificate, key)) = files(settings)? else {
        return Ok(None);
    };
    Ok(Some(Tls::read(certificate, key)?))
}

/// The files of the certificate and of its key.
fn files(settings: &Settings) -> Result<Option<(&Path, &Path)>, InvalidSettings> {
    let missing = |key, why: &str| InvalidSettings::Missing {
        key,
        env: variable(key),
        flag: flag(key),
        why: why.to_owned(),
    };
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing("tls_key", "tls_cert is of no use without its key")),
        (None, Some(_)) => Err(missing(
            "tls_cert",
            "tls_key is of no use without its certificate",
        )),
    }
}
