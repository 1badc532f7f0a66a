//! What a service bears: how many requests at a time, how many bytes of them, and how many of each client.

mod answers;
mod bound;
mod load;
mod places;
mod rate;
mod refusals;
mod shares;

pub use answers::bounded_answers;
pub use load::{LoadLimits, limited};
pub(crate) use rate::Client;
pub use rate::{RateLimit, Rates, rated, rated_refusals};
pub use shares::{Share, Shares};
