//! What the migrations of both databases share.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

use super::OpenError;

/// The table that says which migrations were made. Not sqlx's own name: a read store may share the file.
pub(crate) const TABLE: &str = "log_migrations";

/// Runs `migrations`, each a number, a description and its SQL. The caller sees to it that it never runs twice at once.
pub(crate) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |(number, description, sql): &(i64, &'static str, &'static str)| {
        Migration::new(
            *number,
            Cow::Borrowed(*description),
            MigrationType::Simple,
            (*sql).into_sql_str(),
            false,
        )
    };
    let mut migrator = Migrator::with_migrations(migrations.iter().map(migration).collect());
    migrator.dangerous_set_table_name(TABLE);
    migrator.set_locking(false);
    migrator
}

/// Runs the migrations that were not run before.
///
/// By `run_direct`, which `Migrator::run` wraps: the future of the latter is not known to be `Send` for a connection.
pub(crate) async fn migrate(
    migrator: &Migrator,
    connection: &mut impl Migrate,
) -> Result<(), MigrateError> {
    migrator.run_direct(None, connection, false).await
}

/// Says what went wrong in our terms.
pub(crate) fn migration_error(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer { version },
        MigrateError::VersionMismatch(version) => OpenError::Changed { version },
        other => OpenError::Migration(Box::new(other)),
    }
}
