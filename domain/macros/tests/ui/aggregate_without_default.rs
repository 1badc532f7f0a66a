extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[aggregate]
struct Account {
    owner: std::net::IpAddr,
}

fn main() {}
