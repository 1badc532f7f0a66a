//! One of the three services is killed in the middle of 500 writes.

use super::{MEANWHILE, MIDDLE, WRITES, nothing_is_lost, reads_see_writes};
use crate::load::Load;
use crate::services::{Backends, Role, Site};

#[tokio::test]
async fn the_command_service_is_killed_in_the_middle_of_writes() {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    for moment in [MIDDLE, MIDDLE + MEANWHILE] {
        load.reaches(moment).await;
        site.service(Role::Command).kill();
        load.is_refused().await;
        site.service(Role::Command).restart().await;
    }
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}

#[tokio::test]
async fn the_eventbus_is_killed_in_the_middle_of_writes() {
    killed_where_commands_do_not_need_it(Role::EventBus).await;
}

#[tokio::test]
async fn the_query_service_is_killed_in_the_middle_of_writes() {
    killed_where_commands_do_not_need_it(Role::Query).await;
}

async fn killed_where_commands_do_not_need_it(role: Role) {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    site.service(role).kill();
    let broken = load.acknowledged();
    load.reaches(broken + MEANWHILE).await;
    site.service(role).restart().await;
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}
