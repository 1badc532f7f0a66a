extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[commands]
struct Deposit {
    cents: u64,
}

fn main() {}
