//! What the services are safe from: by default, or by their settings.

mod limits;
mod transport;
