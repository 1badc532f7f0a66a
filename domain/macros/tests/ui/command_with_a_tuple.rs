extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[commands]
enum AccountCommand {
    #[create]
    Open(String),
}

fn main() {}
