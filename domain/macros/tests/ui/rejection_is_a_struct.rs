extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[rejections]
struct InsufficientFunds {
    balance_cents: u64,
}

fn main() {}
