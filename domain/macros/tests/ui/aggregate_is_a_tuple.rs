extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate]
struct Account(u64);

fn main() {}
