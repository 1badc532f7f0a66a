extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate(name = "Bank Account")]
struct Account {
    balance_cents: u64,
}

fn main() {}
