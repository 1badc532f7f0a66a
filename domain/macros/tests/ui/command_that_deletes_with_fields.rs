extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[commands]
enum AccountCommand {
    #[create]
    Open { owner: String },
    #[delete]
    Close { why: String },
}

fn main() {}
