//! An older copy of the database's directory is put back under running services: the log went back in time.

use tidelog_domain::Partitions;
use tidelog_test_support::{Engine, Server, Signal};

use crate::load::Load;
use crate::log::{fold, fresh_log, read};
use crate::services::{Backends, CommandLine, Role, Site};
use crate::view::View;
use crate::waiting::eventually;

#[tokio::test]
async fn an_older_copy_of_mysql_under_running_views_is_noticed_and_repaired() {
    let mut database = Server::start(Engine::MySql).await;
    let log = fresh_log(&database, Partitions::DEFAULT).await;
    let backends = Backends {
        database_url: log.service.clone(),
        ..Backends::fresh().await
    };
    let mut site = Site::three(&backends).await;
    let view = View::on(&backends).await;
    let writes = async |count| Load::start(&site.commands, count).finish().await;
    writes(60).await;
    view.equals_the_fold("post").await;
    let backup = database.snapshot().await;
    let saved = read(&backends.database_url).await;
    writes(120).await;
    view.equals_the_fold("post").await;
    let before = view.documents("post").await;

    database.restore(&backup).await;
    assert_eq!(
        read(&backends.database_url).await,
        saved,
        "the older copy is there"
    );
    it_is_named(&mut site).await;
    assert_eq!(
        view.documents("post").await,
        before,
        "the views do not move on a log that they cannot trust"
    );

    // Also a command service that starts now, and new writes at positions that were issued before, change nothing of that.
    site.service(Role::Command).restart().await;
    Load::start(&site.commands, 40).finish().await;
    let restored = read(&backends.database_url).await;
    site.service(Role::EventBus).kill();
    site.services[1] = crate::services::Service::launch(Role::EventBus, &backends.settings());
    it_is_named(&mut site).await;
    // A partition of which nothing was lost may have gone on before the loss was noticed in another one: rightly.
    let folded = fold(&restored, "post");
    let after = view.documents("post").await;
    for (id, document) in &after {
        let is_right = before.get(id) == Some(document) || folded.get(id) == Some(document);
        assert!(is_right, "{id} moved on positions that were issued again");
    }
    assert!(before.keys().all(|id| after.contains_key(id)));

    for service in &mut site.services {
        assert_eq!(
            service.stop(Signal::Term).await,
            Some(0),
            "{}",
            service.process().output()
        );
    }
    let new_history = CommandLine::new(&["doctor", "--new-history"]).with(backends.settings());
    let refused = new_history.run().await;
    assert_ne!(refused.code, Some(0), "a service may not: {refused:?}");
    let new_history = CommandLine::new(&["doctor", "--new-history"]).with(backends.settings());
    let by_who_migrates = [("DATABASE_URL", log.migrate.as_str())];
    new_history.with(by_who_migrates).run().await.succeeded();
    let mut site = Site::three(&backends).await;
    view.equals_the_fold("post").await;
    assert_ne!(folded, before, "the test restored something else");
    writes_go_on(&mut site, &backends, restored.len()).await;
}

/// Waits until the eventbus says what happened and what to do.
async fn it_is_named(site: &mut Site) {
    let eventbus = site.service(Role::EventBus);
    eventbus
        .process()
        .wait_for_line("doctor --new-history")
        .await;
    let admin = eventbus.admin();
    eventually("the eventbus to say that it is not ready", async || {
        let health = admin.get("/health/ready").await;
        if health.status == 503 {
            Ok(())
        } else {
            Err(format!("{health:?}"))
        }
    })
    .await;
}

async fn writes_go_on(site: &mut Site, backends: &Backends, before: usize) {
    let outcome = Load::start(&site.commands, 40).finish().await;
    let rows = read(&backends.database_url).await;
    crate::log::assert_dense(&rows);
    // What was done about it is recorded there too.
    let own = rows
        .iter()
        .filter(|row| !row.stream.starts_with("tidelog/"));
    assert_eq!(own.count(), before + outcome.count());
    View::on(backends).await.equals_the_fold("post").await;
    super::reads_see_writes(site).await;
}
