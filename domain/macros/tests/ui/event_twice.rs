extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[events("account")]
enum AccountEvent {
    Opened { owner: String },
    #[name("opened")]
    OpenedAgain { owner: String },
}

fn main() {}
