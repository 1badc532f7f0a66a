//! What a program is told from outside: by flag, environment variable, file, in that order of precedence.

mod admin_tokens;
mod auth;
mod insecure_backends;
mod known;
mod sources;
mod values;

pub(crate) use admin_tokens::AdminToken;
pub use admin_tokens::{AdminSecret, AdminTokens, Permission};
pub use auth::AuthSettings;
#[cfg(feature = "servers")]
pub(crate) use insecure_backends::Backend;
pub use insecure_backends::InsecureBackends;
pub use known::{Kind, SETTINGS, Setting};
pub(crate) use known::{flag, variable};
#[cfg(feature = "servers")]
pub(crate) use sources::shown_url;
pub use sources::{InvalidSettings, Layers, Origin};
pub use tidelog_http::{CorsOrigins, RateLimit, Secret};
pub(crate) use values::IN_MEMORY;
pub use values::{LogFormat, Role, Settings, TraceSample};
