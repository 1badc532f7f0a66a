//! A blog: an entity with one rule, and a view that counts.

use tidelog::prelude::*;

/// A post on the blog.
#[entity(rule = title_is_fixed, rejection = PostRejection)]
struct Post {
    #[schemars(length(min = 1, max = 200))]
    title: String,
    content: String,
    author_name: String,
    published: bool,
}

#[rejections]
enum PostRejection {
    /// A published post keeps its title.
    TitleIsFixed,
}

fn title_is_fixed(change: Change<'_, Post>, _: &Context) -> Result<(), PostRejection> {
    match change {
        Change::Update(old, new) if old.published && old.title != new.title => {
            Err(PostRejection::TitleIsFixed)
        }
        _ => Ok(()),
    }
}

/// How many posts an author has.
#[view]
struct Author {
    posts: i64,
}

impl Projection for Author {
    type Event = EntityEvent<Post>;

    fn keys(e: &Recorded<Self::Event>) -> Keys {
        e.event.keys(|post| &post.author_name)
    }

    fn project(view: Option<Self>, key: &str, e: &Recorded<Self::Event>) -> Option<Self> {
        let posts = view.unwrap_or_default().posts;
        let posts = posts + e.event.delta(|post| post.author_name == key);
        Some(Author { posts })
    }
}

fn main() -> std::process::ExitCode {
    App::new("blog")
        .entity::<Post>()
        .projection::<Author>()
        .run()
}

#[test]
fn a_published_post_keeps_its_title() {
    let (title, content, author_name) = ("a".into(), "c".into(), "ann".into());
    let published = true;
    given_entity([created(Post {
        title,
        content,
        author_name,
        published,
    })])
    .when(patch(json!({"title": "b"})))
    .then_rejected(PostRejection::TitleIsFixed);
}
