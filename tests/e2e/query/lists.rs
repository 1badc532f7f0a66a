//! Orders, pages, counts and first matches.

use std::collections::BTreeSet;

use serde_json::json;

use super::targets::{finds, ids, refuses, targets};

#[tokio::test]
async fn sort_orders_by_any_fields_and_then_by_id() {
    finds("sort=title", &["b5", "b3", "b6", "b1", "b2", "b4"]).await;
    finds("sort=-title", &["b4", "b2", "b1", "b6", "b3", "b5"]).await;
    // What is missing comes first.
    finds("sort=rating", &["b3", "b5", "b2", "b6", "b1", "b4"]).await;
    finds("sort=-rating,-id", &["b4", "b1", "b6", "b2", "b5", "b3"]).await;
    finds(
        "sort=in_print,-pages",
        &["b3", "b5", "b6", "b2", "b4", "b1"],
    )
    .await;
    finds("sort=author.name&author[exists]=true", &["b1", "b4", "b2"]).await;
    for target in targets().await {
        let ascending = target
            .queries()
            .get("/books?sort=created_at&limit=200")
            .await;
        let mut reversed = ids(&target
            .queries()
            .get("/books?sort=-created_at&limit=200")
            .await);
        reversed.reverse();
        assert_eq!(ids(&ascending), reversed);
    }
    refuses("/books?sort=tags", "unknown-parameter", "sort").await;
    refuses("/books?sort=colour", "unknown-parameter", "sort").await;
    refuses("/books?sort=title,title", "malformed-request", "sort").await;
}

#[tokio::test]
async fn pages_follow_each_other_in_any_order() {
    for target in targets().await {
        for order in [
            "",
            "sort=rating",
            "sort=-in_print,title",
            "sort=-pages&rating[exists]=true",
            "sort=-id",
        ] {
            let whole = ids(&target
                .queries()
                .get(&format!("/books?{order}&limit=200"))
                .await);
            for limit in 1..4 {
                let (mut seen, mut after) = (Vec::new(), String::new());
                loop {
                    let page = format!("/books?{order}&limit={limit}{after}");
                    let page = target.queries().get(&page).await;
                    let found = ids(&page);
                    assert!(found.len() <= limit);
                    seen.extend(found);
                    match page.json()["next"].as_str() {
                        Some(next) => after = format!("&after={next}"),
                        None => break,
                    }
                }
                assert_eq!(seen, whole, "{order} by {limit}");
            }
        }
    }
}

#[tokio::test]
async fn a_cursor_neither_skips_nor_repeats_while_others_write() {
    for target in targets().await {
        let site = &target.site;
        let write = async |id: &str, rank: i64| {
            let note = json!({"id": id, "text": "paged", "rank": rank});
            let written = site.commands.post("/note", &note).await;
            written.data(201);
            written.token().to_owned()
        };
        let read = async |path: &str, token: &str| site.queries.get_after(path, token).await;
        for n in 0..6 {
            let token = write(&format!("n{n}"), n % 2).await;
            read(&format!("/note/n{n}"), &token).await.data(200);
        }
        let pages = "/notes?text=paged&sort=-rank&limit=2";
        let first = site.queries.get(pages).await;
        assert_eq!(ids(&first), ["n1", "n3"]);
        // One before the place and one behind it; and the last one that was seen goes.
        write("n0a", 7).await;
        let behind = write("n9", 0).await;
        read("/note/n9", &behind).await.data(200);
        let gone = site.commands.delete("/note/n3").await;
        read("/note/n3", gone.token())
            .await
            .problem(404, "not-found");
        let mut next = first.json()["next"].as_str().map(str::to_owned);
        let mut seen = Vec::new();
        while let Some(after) = next {
            let page = site.queries.get(&format!("{pages}&after={after}")).await;
            seen.extend(ids(&page));
            next = page.json()["next"].as_str().map(str::to_owned);
        }
        assert_eq!(seen, ["n5", "n0", "n2", "n4", "n9"]);
    }
}

#[tokio::test]
async fn a_cursor_belongs_to_its_order() {
    for target in targets().await {
        let page = target.queries().get("/books?sort=title&limit=1").await;
        let next = page.json()["next"].as_str().unwrap().to_owned();
        for order in ["", "sort=-title&", "sort=rating&"] {
            let answer = target
                .queries()
                .get(&format!("/books?{order}after={next}"))
                .await;
            let problem = answer.problem(400, "malformed-request");
            assert_eq!(problem["parameter"], "after", "{problem}");
        }
    }
}

#[tokio::test]
async fn limit_bounds_a_page() {
    finds("limit=2", &["b1", "b2"]).await;
    for limit in ["0", "201", "-1", "x", ""] {
        refuses(
            &format!("/books?limit={limit}"),
            "malformed-request",
            "limit",
        )
        .await;
    }
}

#[tokio::test]
async fn count_says_how_many_there_are_on_all_pages() {
    for target in targets().await {
        for (query, count) in [
            ("", 6),
            ("&rating[exists]=true", 4),
            ("&title[contains]=ides&sort=-title", 2),
            ("&title=nothing", 0),
            ("&deleted=include", 7),
        ] {
            let answer = target
                .queries()
                .get(&format!("/books?count=exact&limit=1{query}"))
                .await;
            answer.data(200);
            assert_eq!(answer.json()["count"], count, "{query}");
        }
        let page = target
            .queries()
            .get("/books?count=exact&limit=2")
            .await
            .json();
        let next = page["next"].as_str().unwrap();
        let page = target
            .queries()
            .get(&format!("/books?count=exact&limit=2&after={next}"))
            .await;
        assert_eq!(page.json()["count"], 6);
        assert!(
            target
                .queries()
                .get("/books")
                .await
                .json()
                .get("count")
                .is_none()
        );
    }
    refuses("/books?count=roughly", "malformed-request", "count").await;
}

#[tokio::test]
async fn the_first_match_is_that_of_its_order() {
    for target in targets().await {
        for (query, id) in [
            ("", "b1"),
            ("?sort=-rating", "b4"),
            ("?sort=pages&rating[exists]=true", "b6"),
            ("?title=Ebb", "b3"),
        ] {
            let first = target
                .queries()
                .get(&format!("/book{query}"))
                .await
                .data(200);
            assert_eq!(first["id"], id, "{query}");
        }
        target
            .queries()
            .get("/book?title=nothing")
            .await
            .problem(404, "not-found");
    }
    for word in ["limit", "after", "count"] {
        refuses(&format!("/book?{word}=1"), "unknown-parameter", word).await;
    }
}

#[tokio::test]
async fn the_service_describes_each_parameter_that_it_takes() {
    for target in targets().await {
        let document = target.queries().get("/openapi.json").await.json();
        let parameters = document["paths"]["/books"]["get"]["parameters"].as_array();
        let names: BTreeSet<&str> = parameters
            .unwrap()
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        for name in [
            "title",
            "title[ne]",
            "title[in]",
            "title[prefix]",
            "title[contains]",
            "pages[gte]",
            "rating[lt]",
            "in_print[exists]",
            "tags[contains]",
            "author.name",
            "created_at[gt]",
            "match",
            "sort",
            "limit",
            "after",
            "fields",
            "count",
            "deleted",
        ] {
            assert!(names.contains(name), "{name} in {names:?}");
        }
        for name in ["tags", "author", "pages[prefix]", "in_print[gt]"] {
            assert!(!names.contains(name), "{name}");
        }
    }
}
