//! Each example of `docs/query.md` is one that both sites answer.

use super::targets::targets;

const GUIDE: &str = include_str!("../../../docs/query.md");

#[tokio::test]
async fn each_example_of_the_guide_is_answered() {
    let quoted = GUIDE.split('`').skip(1).step_by(2);
    let examples: Vec<&str> = quoted
        .filter_map(|text| text.strip_prefix("GET "))
        .collect();
    assert!(examples.len() > 25, "{examples:?}");
    for target in targets().await {
        let page = target
            .queries()
            .get("/books?sort=-rating&limit=2")
            .await
            .json();
        let next = page["next"].as_str().unwrap();
        let first = target.queries().get("/book/b1/history?limit=1").await;
        let first = first.data(200);
        let time = first[0]["recorded_at"].as_str().unwrap();
        for example in &examples {
            let path = example.replace("CURSOR", next).replace("TIME", time);
            target.queries().get(&path).await.data(200);
        }
    }
}
