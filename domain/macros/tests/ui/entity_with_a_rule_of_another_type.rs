extern crate tidelog_domain as tidelog;
use tidelog::prelude::*;

#[entity(rule = title_is_fixed, rejection = PostRejection)]
struct Post {
    title: String,
}

#[rejections]
enum PostRejection {
    TitleIsFixed,
}

fn title_is_fixed(post: &Post, _: &Context) -> Result<(), PostRejection> {
    let _ = post;
    Ok(())
}

fn main() {}
