//! The read stores: the conformance suite of the port on each of them, and what only MongoDB can get wrong.

mod conformance;
mod faults;
mod lanes;
mod mongodb;
