extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate(nam = "account")]
struct Account {
    balance_cents: u64,
}

fn main() {}
