//! On the embedded file: the running process is asked where there is one, else the file.

use tidelog_test_support::Signal;

use super::{POISON, is_set_aside, tamper_with_file, write};
use crate::services::{CommandLine, Role, Service};

/// Runs the program with these arguments on the file of `service`.
fn cli(service: &Service, arguments: &[&str]) -> CommandLine {
    let data = service.home().join("tidelog-data");
    let data = data.to_str().unwrap();
    CommandLine::new(arguments).with([
        ("TIDELOG_DATA_DIR", data),
        ("TIDELOG_ADMIN_ADDR", service.admin().address()),
    ])
}

#[tokio::test]
async fn the_commands_work_beside_a_running_dev_and_without_it() {
    let mut service = Service::start_with(Role::Dev, &[]).await;
    let commands = service.commands();
    write(&commands, "good").await;
    let url = service.database_url();
    let run = async |service: &Service, arguments: &[&str]| {
        cli(service, arguments).run().await.succeeded()
    };
    run(&service, &["subscriptions", "pause", "post"]).await;
    write(&commands, "bad").await;
    tamper_with_file(&url, "post/bad", POISON).await;
    run(&service, &["subscriptions", "resume", "post"]).await;
    is_set_aside(&service.admin(), "bad", "parked").await;
    let beside = run(&service, &["parked"]).await;
    assert!(beside.stdout.contains("bad"), "{}", beside.output);

    assert_eq!(service.stop(Signal::Term).await, Some(0));
    let without = run(&service, &["parked"]).await;
    assert!(without.stdout.contains("bad"), "{}", without.output);
    let skip = ["parked", "skip", "post", "bad", "--reason", "a test"];
    let asked = run(&service, &skip).await;
    assert!(
        asked.stdout.contains("nobody works on it now"),
        "{}",
        asked.stdout
    );
    let listed = run(&service, &["subscriptions"]).await;
    assert!(listed.stdout.contains("unowned"), "{}", listed.stdout);

    // It is done by the next process.
    service.restart().await;
    let admin = service.admin();
    let done = crate::waiting::eventually("the skip", async || {
        let parked = admin.get("/admin/api/parked").await.data(200);
        parked
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
            .ok_or_else(|| parked.to_string())
    });
    done.await;
    let skipped = admin.get("/admin/api/skipped/post").await.data(200);
    assert_eq!(skipped[0]["reason"], "a test", "{skipped}");
}

#[tokio::test]
async fn a_wrong_admin_address_is_said_to_be_one() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let nobody = crate::services::free_address();
    let asked = cli(&service, &["subscriptions", "--admin-addr", &nobody])
        .run()
        .await;
    assert_eq!(asked.code, Some(3), "{}", asked.output);
    for part in [nobody.as_str(), "--admin-addr", "TIDELOG_ADMIN_ADDR"] {
        assert!(asked.output.contains(part), "no {part} in {}", asked.output);
    }
}
