extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[events("account")]
enum AccountEvent {
    #[version(0)]
    Opened { owner: String },
}

fn main() {}
