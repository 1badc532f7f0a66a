//! What attackers and mistakes must not get through: over real HTTP, against the real binary.

mod limits;
pub(crate) mod sign_in;
mod tenants;
mod transport;
