extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[commands]
enum AccountCommand {
    #[create]
    Open { owner: String },
    #[deletes]
    Close,
}

fn main() {}
