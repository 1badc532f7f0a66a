//! What processes tell of themselves: traces, in a collector that the tests run; logs, without what is nobody's business.

mod metrics;
mod secrets;
mod traces;
