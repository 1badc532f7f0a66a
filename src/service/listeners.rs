//! The addresses that a process listens on, taken before anything else is started.

use std::io::ErrorKind;

use tokio::net::TcpListener;

use crate::settings::{flag, variable};

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {reason}; {advice} with {env}, --{flag} or {key} in tidelog.toml",
    env = variable(.key), flag = flag(.key)
)]
pub struct CannotListen {
    address: String,
    reason: &'static str,
    advice: &'static str,
    key: &'static str,
    source: std::io::Error,
}

/// Listens on `address`, which the setting `key` names.
///
/// # Errors
///
/// [`CannotListen`], which says what to change.
pub(crate) async fn listen(key: &'static str, address: &str) -> Result<TcpListener, CannotListen> {
    TcpListener::bind(address).await.map_err(|source| {
        let (reason, advice) = match source.kind() {
            ErrorKind::AddrInUse => ("the port is taken", "stop what uses it, or choose another"),
            ErrorKind::PermissionDenied => (
                "the port may not be used by this user",
                "choose one above 1023",
            ),
            ErrorKind::AddrNotAvailable => {
                ("the address is not this machine's", "choose one that is")
            }
            _ => ("the address cannot be used", "choose another"),
        };
        CannotListen {
            address: address.to_owned(),
            reason,
            advice,
            key,
            source,
        }
    })
}

/// Where a listener listens: with port 0 in the settings, the real address.
pub(super) fn address(listener: &TcpListener) -> String {
    let address = listener.local_addr();
    address.map_or_else(|_| "(unknown)".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen("command_addr", &address)
            .await
            .unwrap_err()
            .to_string();
        for part in [
            address.as_str(),
            "is taken",
            "TIDELOG_COMMAND_ADDR",
            "--command-addr",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
