extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[entity]
struct Post {
    title: String,
    created_at: String,
}

fn main() {}
