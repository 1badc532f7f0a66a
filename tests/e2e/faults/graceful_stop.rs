//! A service is asked to stop in the middle of writes: it finishes what is in flight, and ends with success.

use tidelog_test_support::Signal;

use super::{MIDDLE, WRITES};
use crate::load::Load;
use crate::log::read;
use crate::services::{Backends, Role, Service, Site};
use crate::view::View;

#[tokio::test]
async fn a_command_service_that_is_asked_to_stop_keeps_all_that_it_acknowledged() {
    for signal in [Signal::Term, Signal::Int] {
        let backends = Backends::fresh().await;
        let mut service = Service::start(Role::Command, &backends).await;
        let mut load = Load::start(&service.commands(), WRITES);
        load.reaches(MIDDLE).await;
        assert_eq!(
            service.stop(signal).await,
            Some(0),
            "{}",
            service.process().output()
        );
        load.end()
            .await
            .assert_in(&read(&backends.database_url).await);
    }
}

#[tokio::test]
async fn all_roles_in_one_process_stop_when_they_are_asked_to() {
    let backends = Backends::fresh().await;
    let mut site = Site::all(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    assert_eq!(
        site.services[0].stop(Signal::Term).await,
        Some(0),
        "{}",
        site.services[0].process().output()
    );
    load.end()
        .await
        .assert_in(&read(&backends.database_url).await);
    site.services[0].restart().await;
    View::on(&backends).await.equals_the_fold("post").await;
}

#[tokio::test]
async fn dev_stops_when_it_is_asked_to() {
    let mut site = Site::dev().await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    assert_eq!(
        site.services[0].stop(Signal::Int).await,
        Some(0),
        "{}",
        site.services[0].process().output()
    );
    load.end()
        .await
        .assert_in(&read(&site.database_url()).await);
    site.services[0].restart().await;
    View::of(&site, None).await.equals_the_fold("post").await;
}

#[tokio::test]
async fn the_eventbus_and_the_query_service_stop_when_they_are_asked_to() {
    for role in [Role::EventBus, Role::Query] {
        let backends = Backends::fresh().await;
        let mut site = Site::three(&backends).await;
        let mut load = Load::start(&site.commands, WRITES);
        load.reaches(MIDDLE).await;
        let service = site.service(role);
        assert_eq!(
            service.stop(Signal::Term).await,
            Some(0),
            "{}",
            service.process().output()
        );
        service.restart().await;
        super::nothing_is_lost(load, &backends).await;
    }
}
