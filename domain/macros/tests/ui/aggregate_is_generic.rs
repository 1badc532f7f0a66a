extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate]
struct Account<T> {
    owner: T,
}

fn main() {}
