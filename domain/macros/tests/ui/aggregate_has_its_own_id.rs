extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate]
struct Account {
    id: String,
    balance_cents: u64,
}

fn main() {}
