extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[events]
enum AccountEvent {
    Opened { owner: String },
}

fn main() {}
