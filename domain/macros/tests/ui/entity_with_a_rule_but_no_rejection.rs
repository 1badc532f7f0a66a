extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[entity(rule = title_is_fixed)]
struct Post {
    title: String,
}

fn main() {}
