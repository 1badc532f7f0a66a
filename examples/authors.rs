//! Pages of authors over their posts: a view with several documents, between which a post moves when its author changes.

use tidelog::prelude::*;

/// How many posts a page shows.
const SHOWN: usize = 10;

/// A post on the blog.
#[entity]
struct Post {
    #[schemars(length(min = 1, max = 200))]
    title: String,
    #[schemars(length(min = 1, max = 100))]
    author_name: String,
}

/// The page of an author.
#[view(name = "author")]
struct AuthorPage {
    /// How many posts the author has.
    posts: usize,
    /// The latest ten of them, the newest first.
    latest: Vec<Line>,
    /// All of them. The latest ten alone would not do: when one of them goes, the eleventh comes back; and posts come in whatever
    /// order the partitions of the log bring them. (Where an author has very many, ask for
    /// `/posts?author_name=ann&sort=-created_at&limit=10` instead.)
    all: Vec<Line>,
}

/// A post on the page of its author.
#[data]
struct Line {
    post: String,
    title: String,
    /// Since when it has been the author's.
    since: DateTime<Utc>,
}

impl Projection for AuthorPage {
    type Event = EntityEvent<Post>;

    fn keys(e: &Recorded<Self::Event>) -> Keys {
        e.event.keys(|post| &post.author_name)
    }

    fn project(page: Option<Self>, author: &str, e: &Recorded<Self::Event>) -> Option<Self> {
        let mut all = page.unwrap_or_default().all;
        let before = all.iter().position(|line| line.post == e.stream_id);
        let before = before.map(|place| all.remove(place));
        let own = |post: &&Post| post.author_name == author;
        all.extend(e.event.after().filter(own).map(|post| Line {
            post: e.stream_id.clone(),
            title: post.title.clone(),
            since: before.map_or(e.recorded_at, |line| line.since),
        }));
        all.sort_by(|a, b| (b.since, &b.post).cmp(&(a.since, &a.post)));
        let latest = all.iter().take(SHOWN).cloned().collect();
        let posts = all.len();
        (posts > 0).then_some(AuthorPage { posts, latest, all })
    }
}

fn authors() -> App {
    App::new("authors")
        .entity::<Post>()
        .projection::<AuthorPage>()
}

fn main() -> std::process::ExitCode {
    authors().run()
}

#[cfg(test)]
mod tests {
    use tidelog::StartError;
    use tidelog::testing::TestApp;

    use super::*;

    fn post(title: &str, author_name: &str) -> Post {
        Post {
            title: title.to_owned(),
            author_name: author_name.to_owned(),
        }
    }

    /// A page with these posts, each by title and the second since when it has been there; the title is the id.
    fn page(lines: &[(&str, i64)]) -> AuthorPage {
        let line = |&(title, second): &(&str, i64)| Line {
            post: title.to_owned(),
            title: title.to_owned(),
            since: DateTime::from_timestamp(second, 0).unwrap_or_default(),
        };
        let all: Vec<Line> = lines.iter().map(line).collect();
        AuthorPage {
            posts: all.len(),
            latest: all.iter().take(SHOWN).cloned().collect(),
            all,
        }
    }

    #[test]
    fn a_page_counts_the_posts_of_its_author_and_has_the_newest_first() {
        given_events([
            on_entity("a", created(post("a", "ann"))),
            on_entity("b", created(post("b", "ann"))),
            on_entity("c", created(post("c", "bob"))),
            on_entity("d", created(post("x", "ann"))),
            on_entity("d", updated(post("d", "ann"))),
            on_entity::<Post>("b", deleted()),
        ])
        .then_view("ann", page(&[("d", 4), ("a", 1)]))
        .then_view("bob", page(&[("c", 3)]));
    }

    #[test]
    fn a_post_that_changes_its_author_moves() {
        given_events([
            on_entity("a", created(post("a", "ann"))),
            on_entity("b", created(post("b", "bob"))),
            on_entity("a", updated(post("a", "bob"))),
        ])
        .then_no_view::<AuthorPage>("ann")
        .then_view("bob", page(&[("a", 3), ("b", 2)]));
    }

    #[test]
    fn the_eleventh_post_comes_back_when_one_of_the_latest_ten_goes() {
        let titles = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        let posts = titles.map(|title| on_entity(title, created(post(title, "ann"))));
        let shown: Vec<(&str, i64)> = titles.into_iter().zip(1..).collect();
        let shown: Vec<(&str, i64)> = shown.into_iter().rev().skip(1).collect();
        let expected = page(&shown);
        let latest: String = expected.latest.iter().map(|line| &*line.title).collect();
        assert_eq!((expected.posts, &*latest), (11, "kjihgfedcb"));
        given_events(posts.into_iter().chain([on_entity::<Post>("l", deleted())]))
            .then_view("ann", expected);
    }

    #[tokio::test]
    async fn a_page_is_there_as_soon_as_a_post_is() -> Result<(), StartError> {
        let app = TestApp::start(authors()).await?;
        for title in ["a", "b"] {
            let post = json!({"id": title, "title": title, "author_name": "ann"});
            app.given("POST /post", &post).await;
        }
        let moved = json!({"author_name": "bob"});
        app.given("PATCH /post/a", &moved).await;
        let ann = app.when_read("/author/ann?fields=posts,latest").await;
        ann.then(
            200,
            &json!({"data": {"posts": 1, "latest": [{"title": "b"}]}}),
        );
        let busy = app
            .when_read("/authors?posts[gte]=1&sort=id&fields=posts")
            .await;
        busy.then(200, &json!({"data": [{"id": "ann"}, {"id": "bob"}]}));
        app.stop().await;
        Ok(())
    }
}
