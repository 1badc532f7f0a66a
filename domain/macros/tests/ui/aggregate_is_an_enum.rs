extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate]
enum Account {
    Open,
    Closed,
}

fn main() {}
