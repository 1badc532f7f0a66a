//! The story by the pages: everything that the person on call does is a click of `tests/pages/story.mjs`, whose pictures are kept in
//! `target/pages`.

use serde_json::json;

use super::Story;
use crate::pages::browser::run;
use crate::pages::{ANN, bearer, record, tokens};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_person_on_call_puts_it_right_by_the_pages() {
    let mut story = Story::begin(&[("TIDELOG_ADMIN_TOKENS", &tokens())]).await;
    story.breaks().await;
    run("story.mjs broken", story.eventbus.admin().address()).await;

    story.deploy_the_fix().await;
    let admin = story.eventbus.admin();
    run("story.mjs mended", admin.address()).await;
    story.is_mended().await;

    let authorization = bearer(ANN);
    let recorded = record(&admin, &[("authorization", &authorization)]).await;
    let mut actions: Vec<_> = recorded.iter().map(|own| &own["action"]).collect();
    actions.reverse();
    let expected = [
        "parked.retry",
        "parked.retry",
        "view.replay",
        "view.rollback",
    ];
    assert_eq!(json!(actions), json!(expected));
    for own in recorded {
        assert_eq!((&own["by"], &own["via"]), (&json!("ann"), &json!("page")));
    }
    story.ends_well().await;
}
