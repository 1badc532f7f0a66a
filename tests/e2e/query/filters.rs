//! Each operator, and how filters are joined.

use super::targets::{finds, refuses, targets};

#[tokio::test]
async fn equality_is_exact() {
    finds("title=Tides", &["b1"]).await;
    finds("title[eq]=tides,+again", &["b2"]).await;
    finds("title=%C3%89clair", &["b4"]).await;
    finds("title=ides", &[]).await;
    finds("pages=90", &["b2", "b5"]).await;
    finds("pages=9007199254740993", &["b4"]).await;
    finds("pages=9007199254740992", &[]).await;
    finds("rating=4", &["b2", "b6"]).await;
    finds("rating=null", &["b3", "b5"]).await;
    finds("in_print=true", &["b1", "b4"]).await;
    finds("id=b3", &["b3"]).await;
    finds("version=1&id=b3", &["b3"]).await;
}

#[tokio::test]
async fn ne_finds_the_others_and_what_is_missing() {
    finds("title[ne]=Tides", &["b2", "b3", "b4", "b5", "b6"]).await;
    finds("subtitle[ne]=low", &["b1", "b3", "b4", "b5", "b6"]).await;
    finds("rating[ne]=null", &["b1", "b2", "b4", "b6"]).await;
}

#[tokio::test]
async fn in_finds_one_of_several_and_quotes_commas() {
    finds("id[in]=b1,b6,b7,b9", &["b1", "b6"]).await;
    finds("title[in]=%22tides, again%22,Ebb", &["b2", "b3"]).await;
    finds("rating[in]=4.5,null", &["b1", "b3", "b5"]).await;
}

#[tokio::test]
async fn ranges_compare_numbers_by_value_and_texts_by_their_bytes() {
    finds("pages[gt]=200", &["b3", "b4"]).await;
    finds("pages[gte]=200", &["b1", "b3", "b4"]).await;
    finds("pages[lt]=90", &["b6"]).await;
    finds("pages[lte]=90", &["b2", "b5", "b6"]).await;
    finds("pages[gt]=9007199254740992", &["b4"]).await;
    finds("rating[gte]=4&rating[lt]=5", &["b1", "b2", "b6"]).await;
    finds("title[gte]=T", &["b1", "b2", "b4"]).await;
    finds("title[lt]=F", &["b3", "b5"]).await;
}

#[tokio::test]
async fn prefix_finds_how_texts_begin() {
    finds("title[prefix]=Tid", &["b1"]).await;
    finds("title[prefix]=.*", &[]).await;
    finds("title[prefix]=100%25", &["b5"]).await;
    finds("id[prefix]=b", &["b1", "b2", "b3", "b4", "b5", "b6"]).await;
}

#[tokio::test]
async fn contains_finds_a_text_in_a_text_and_an_item_in_a_list() {
    finds("title[contains]=ides", &["b1", "b2"]).await;
    finds("title[contains]=%22.*%22", &["b5"]).await;
    finds("title[contains]=%27", &["b6"]).await;
    finds("tags[contains]=sea", &["b1", "b3"]).await;
    finds("tags[contains]=$ne", &["b5"]).await;
    finds("tags[contains]=se", &[]).await;
}

#[tokio::test]
async fn exists_tells_what_is_there_from_what_is_missing_or_null() {
    finds("subtitle[exists]=true", &["b2"]).await;
    finds("rating[exists]=false", &["b3", "b5"]).await;
    finds("author[exists]=true", &["b1", "b2", "b4"]).await;
    finds("tags[exists]=false", &["b4", "b6"]).await;
}

#[tokio::test]
async fn nested_fields_are_reached_by_dots() {
    finds("author.name=Ann", &["b1"]).await;
    finds("author.name[prefix]=Ann", &["b1", "b4"]).await;
    finds(
        "author.country[exists]=false&author[exists]=true",
        &["b2", "b4"],
    )
    .await;
}

#[tokio::test]
async fn times_are_instants_whatever_their_offset() {
    for target in targets().await {
        let book = target.queries().get("/book/b3").await.data(200);
        let created = book["created_at"].as_str().unwrap().to_owned();
        let shifted = chrono::DateTime::parse_from_rfc3339(&created).unwrap();
        let zone = chrono::FixedOffset::east_opt(5400).unwrap();
        let shifted = shifted.with_timezone(&zone).to_rfc3339();
        for (operator, found) in [
            ("eq", true),
            ("gte", true),
            ("lte", true),
            ("gt", false),
            ("lt", false),
            ("ne", false),
        ] {
            for time in [&created, &shifted] {
                let query: String = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("id", "b3")
                    .append_pair(&format!("created_at[{operator}]"), time)
                    .finish();
                let answer = target.queries().get(&format!("/books?{query}")).await;
                assert_eq!(
                    super::targets::ids(&answer).len(),
                    usize::from(found),
                    "{query}"
                );
            }
        }
    }
}

#[tokio::test]
async fn filters_hold_all_or_any() {
    finds("pages=90&in_print=false", &["b2"]).await;
    finds("match=all&pages=90&in_print=false", &["b2"]).await;
    finds(
        "match=any&title=Ebb&pages=90&author.name=Ann",
        &["b1", "b2", "b3", "b5"],
    )
    .await;
    finds(
        "match=any&sort=-id&title=Ebb&tags[contains]=sea",
        &["b3", "b1"],
    )
    .await;
}

#[tokio::test]
async fn what_a_field_does_not_take_is_refused_with_what_it_does() {
    for (parameter, allowed) in [
        ("pages[prefix]", "`gte`"),
        ("in_print[gt]", "`ne`"),
        ("tags[eq]", "`contains`"),
        ("author", "`exists`"),
        ("title[like]", "`prefix`"),
    ] {
        let path = format!("/books?{parameter}=1");
        refuses(&path, "unknown-parameter", parameter).await;
        for target in targets().await {
            let problem = target
                .queries()
                .get(&path)
                .await
                .problem(400, "unknown-parameter");
            assert!(
                problem["detail"].as_str().unwrap().contains(allowed),
                "{problem}"
            );
        }
    }
    for parameter in ["colour", "author.age", "title.x"] {
        refuses(
            &format!("/books?{parameter}=1"),
            "unknown-parameter",
            parameter,
        )
        .await;
    }
    for (parameter, value) in [
        ("pages", "many"),
        ("pages[gt]", "null"),
        ("rating[in]", "1,x"),
        ("in_print", "yes"),
        ("title[in]", "%22open"),
        ("title[exists]", "maybe"),
        ("created_at[gt]", "yesterday"),
        ("version[lt]", "1.5"),
        ("match", "some"),
    ] {
        let path = format!("/books?{parameter}={value}");
        refuses(&path, "malformed-request", parameter).await;
    }
}

#[tokio::test]
async fn there_are_bounds_to_what_can_be_asked() {
    let many = (0..101)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    refuses(
        &format!("/books?pages[in]={many}"),
        "malformed-request",
        "pages[in]",
    )
    .await;
    refuses(
        &format!("/books?fields={many}"),
        "malformed-request",
        "fields",
    )
    .await;
    refuses(
        "/books?sort=id,title,pages,rating,version",
        "malformed-request",
        "sort",
    )
    .await;
    let text = [
        "eq", "ne", "in", "gt", "gte", "lt", "lte", "prefix", "contains", "exists",
    ];
    let fields = ["id", "title", "subtitle", "author.name"];
    let all = fields
        .iter()
        .flat_map(|field| text.map(|operator| format!("{field}[{operator}]=true")));
    let filters: Vec<String> = all.take(33).collect();
    refuses(
        &format!("/books?{}", filters.join("&")),
        "malformed-request",
        "author.name[in]",
    )
    .await
}
