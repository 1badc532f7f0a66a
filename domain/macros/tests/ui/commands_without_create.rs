extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[commands]
enum AccountCommand {
    Deposit { cents: u64 },
    Close,
}

fn main() {}
