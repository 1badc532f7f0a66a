//! Every case of the conformance suite, on each server.

use tidelog_command::event_store_conformance;
use tidelog_test_support::shared;

use super::kit::DatabaseLog;

event_store_conformance!(
    on_mysql,
    DatabaseLog::fresh(shared::mysql().await).await,
    durable,
    shared,
    spoilable
);
event_store_conformance!(
    on_mariadb,
    DatabaseLog::fresh(shared::mariadb().await).await,
    durable,
    shared,
    spoilable
);
