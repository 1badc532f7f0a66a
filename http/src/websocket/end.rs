//! How a socket ends.

use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The code of a socket whose token counts no more.
const EXPIRED: u16 = 4401;

/// The code of a socket from which nothing was heard.
const IDLE: u16 = 4408;

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client has said so, or is gone.
    Left,
    /// The client does not take what is sent to it.
    Stuck,
    /// The service stops.
    Stopping,
    /// The token that it was opened with counts no more.
    Expired,
    /// Nothing was heard for too long.
    Idle,
    /// A message was too large.
    TooLarge,
    /// A message was binary.
    Binary,
    /// A message was not in UTF-8.
    NotUtf8,
    /// What came is not WebSocket.
    Malformed,
}

impl End {
    /// What reading came to.
    pub(super) fn of(error: &tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(_) => Self::TooLarge,
            tungstenite::Error::Utf8(_) => Self::NotUtf8,
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Left,
            tungstenite::Error::Protocol(_) => Self::Malformed,
            _ => Self::Left,
        }
    }

    /// Its name, in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Stuck => "slow-reader",
            Self::Stopping => "stopping",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::TooLarge => "too-large",
            Self::Binary | Self::NotUtf8 | Self::Malformed => "malformed",
        }
    }

    /// What the client is told; nothing, where it would not hear it.
    pub(super) fn close(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left | Self::Stuck => return None,
            Self::Stopping => (CloseCode::Away, "the service stops: come back"),
            Self::Expired => (
                CloseCode::from(EXPIRED),
                "the token is expired: get a new one",
            ),
            Self::Idle => (CloseCode::from(IDLE), "nothing was heard for too long"),
            Self::TooLarge => (CloseCode::Size, "the message is too large"),
            Self::Binary => (CloseCode::Unsupported, "messages are text"),
            Self::NotUtf8 => (CloseCode::Invalid, "the message is not in UTF-8"),
            Self::Malformed => (CloseCode::Protocol, "this is not WebSocket"),
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}
