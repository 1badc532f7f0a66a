//! What there is to say of the log and its database: pure.

use chrono::{DateTime, TimeDelta, Utc};
use tidelog_command::store::{InspectedLog, Inspection};
use tidelog_domain::Partitions;

use super::report::Report;
use crate::cli::table::counted;
use crate::settings::Settings;

/// What the database must take in one packet for the largest batch.
const BATCH_BYTES: u64 = 16 * 1024 * 1024;

/// How many connections the processes of one application want, about.
const CONNECTIONS: u64 = 40;

/// How far clocks may be apart before it is told, and before it is a failure.
const CLOCK_WARN: TimeDelta = TimeDelta::seconds(1);
const CLOCK_FAIL: TimeDelta = TimeDelta::seconds(60);

impl Report {
    /// What `inspection`, which ended at `now`, has found of the log that `settings` name.
    pub(super) fn of_log(
        &mut self,
        inspection: &Inspection,
        settings: &Settings,
        now: DateTime<Utc>,
    ) {
        let is_server = !inspection.settings.is_empty();
        match (is_server, &inspection.log) {
            (false, None) => self.ok("log", "there is no file yet: it is made at the first start"),
            (false, _) => self.ok("log", format!("SQLite {}", inspection.version)),
            (true, _) => self.server(inspection),
        }
        self.migrations(inspection);
        if is_server && inspection.log.is_some() {
            self.rights(inspection.may_change_events);
        }
        if let Some(clock) = inspection.clock {
            self.clock("the database's", now - clock);
        }
        if let Some(log) = &inspection.log {
            self.identity(log, settings);
            self.heads(log);
            self.last_time(log, now);
        }
    }

    fn server(&mut self, inspection: &Inspection) {
        let version = &inspection.version;
        let is_mariadb = version.to_ascii_lowercase().contains("mariadb");
        let oldest = if is_mariadb { (10, 11) } else { (8, 4) };
        let name = if is_mariadb { "MariaDB" } else { "MySQL" };
        let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
        let found = (parts.next(), parts.next());
        let found = match found {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        };
        match found {
            Some(found) if found >= oldest => self.ok("log", format!("{name} {version}")),
            _ => {
                let (major, minor) = oldest;
                let found = format!("{name} {version}, which was not tested");
                self.warn("log", found, format!("use {name} {major}.{minor} or later"));
            }
        }
        let setting = |name: &str| inspection.settings.get(name).map_or("", String::as_str);
        let number = |name: &str| setting(name).parse::<u64>().unwrap_or_default();
        if setting("read_only") == "ON" || setting("super_read_only") == "ON" {
            let found = "the server is read-only: nothing can be written";
            self.fail(
                "log",
                found,
                "name the primary in database_url, or make this one writable",
            );
        }
        self.durability(&setting);
        if number("max_allowed_packet") < BATCH_BYTES {
            let found = format!(
                "max_allowed_packet is {} bytes",
                number("max_allowed_packet")
            );
            self.warn(
                "settings of MySQL",
                found,
                "set it to 64M: large commands and their batches need 16 MiB",
            );
        }
        let (used, most) = (number("threads_connected"), number("max_connections"));
        let free = most.saturating_sub(used);
        let found = format!("{used} of {most} connections are in use");
        if free < CONNECTIONS {
            let advice = format!("raise max_connections: three processes want up to {CONNECTIONS}");
            self.warn("connections", found, advice);
        } else {
            self.ok("connections", found);
        }
    }

    /// Whether what was acknowledged outlives a crash.
    fn durability<'a>(&mut self, setting: &impl Fn(&str) -> &'a str) {
        const CHECK: &str = "durability";
        let mut is_right = true;
        if setting("log_bin") != "ON" {
            is_right = false;
            let found = "log_bin is off: there is no restore to a point in time, and no replica";
            self.warn(
                CHECK,
                found,
                "set log_bin, and keep the binary logs with the backups",
            );
        } else {
            if setting("binlog_format") == "STATEMENT" {
                is_right = false;
                let found = "binlog_format is STATEMENT, which cannot log transactions that are READ COMMITTED";
                self.fail(CHECK, found, "set binlog_format=ROW");
            }
            if setting("sync_binlog") != "1" {
                is_right = false;
                let found = format!(
                    "sync_binlog is {}: after a crash acknowledged events can be missing",
                    setting("sync_binlog")
                );
                self.warn(CHECK, found, "set sync_binlog=1");
            }
        }
        let flush = setting("innodb_flush_log_at_trx_commit");
        if flush != "1" {
            is_right = false;
            let found = format!(
                "innodb_flush_log_at_trx_commit is {flush}: after a crash acknowledged events can be missing"
            );
            self.warn(CHECK, found, "set innodb_flush_log_at_trx_commit=1");
        }
        if is_right {
            self.ok(CHECK, "a commit is on the disk before it is acknowledged");
        }
    }

    fn migrations(&mut self, inspection: &Inspection) {
        let due: Vec<_> = inspection
            .pending
            .iter()
            .map(|own| own.number.to_string())
            .collect();
        if due.is_empty() {
            self.ok("migrations", "the database is of this program's version");
        } else if inspection.log.is_none() {
            self.ok(
                "migrations",
                "the log is not made yet: `serve`, `dev` or `migrate` makes it",
            );
        } else {
            let found = format!("due: {}", due.join(", "));
            self.warn(
                "migrations",
                found,
                "run `migrate` (with --dry-run it shows them); `serve` does it too",
            );
        }
    }

    /// Whether the user may change what was recorded.
    fn rights(&mut self, may_change_events: bool) {
        const CHECK: &str = "rights";
        match may_change_events {
            false => self.ok(CHECK, "the user may not change or delete events"),
            true => self.warn(
                CHECK,
                "the user may change or delete events, which a service never does",
                "give the services a user with the rights of deploy/mysql/grants.sql",
            ),
        }
    }

    /// How far the clock of `whose` server is behind this machine's.
    pub(super) fn clock(&mut self, whose: &str, ahead: TimeDelta) {
        let off = ahead.abs();
        let found = format!(
            "this machine's clock and {whose} are {} ms apart",
            off.num_milliseconds()
        );
        let advice = "let both follow the same time server (chrony, systemd-timesyncd)";
        match off {
            off if off > CLOCK_FAIL => self.fail("clock", found, advice),
            off if off > CLOCK_WARN => self.warn("clock", found, advice),
            _ => self.ok("clock", found),
        }
    }

    fn identity(&mut self, log: &InspectedLog, settings: &Settings) {
        let configured = settings.partitions.count();
        if log.partitions != u32::from(configured) {
            let found = format!(
                "the log has {}, but the settings say {configured}",
                counted(log.partitions.into(), "partition")
            );
            self.fail(
                "partitions",
                found,
                format!("set partitions to {}: a log's never change", log.partitions),
            );
        } else if log.hash != Partitions::HASH {
            let found = format!(
                "the log spreads its streams by {:?}, this program by {:?}",
                log.hash,
                Partitions::HASH
            );
            self.fail("partitions", found, "run the program that made the log");
        } else {
            let events: u64 = log
                .heads
                .iter()
                .map(|(next, _)| next.saturating_sub(1))
                .sum();
            let events = counted(events, "event");
            self.ok("partitions", format!("{configured}, with {events}"));
        }
        match log.history {
            Some(history) => self.ok("history", format!("the log's is {history}")),
            None => self.fail(
                "history",
                "the log's history id cannot be read",
                "restore the log from a backup",
            ),
        }
    }

    /// Whether each partition ends where its head says.
    fn heads(&mut self, log: &InspectedLog) {
        let heads = (0..).zip(&log.heads);
        let wrong: Vec<_> = heads
            .filter(|(_, (next, last))| *next != last.saturating_add(1))
            .map(|(partition, (next, last)): (u32, _)| {
                format!(
                    "partition {partition} ends at {last}, its head says {}",
                    next.saturating_sub(1)
                )
            })
            .collect();
        if wrong.is_empty() {
            self.ok("heads", "every partition ends where its head says");
        } else {
            let advice = "rows were changed past the program: restore the log from a backup, then `doctor --new-history`";
            self.fail("heads", wrong.join("; "), advice);
        }
    }

    fn last_time(&mut self, log: &InspectedLog, now: DateTime<Utc>) {
        let ahead = log.last_recorded_at.map(|last| last - now);
        if let Some(ahead) = ahead.filter(|ahead| *ahead > CLOCK_WARN) {
            let found = format!(
                "the last event was recorded {} s in the future: a clock was ahead",
                ahead.num_seconds()
            );
            self.warn(
                "clock",
                found,
                "nothing is lost: new events of that partition bear the same time until then",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Finding;
    use super::*;

    /// What is found, as `check finding`, of what is not fine.
    fn not_fine(say: impl FnOnce(&mut Report)) -> Vec<(&'static str, Finding)> {
        let mut report = Report::default();
        say(&mut report);
        let checks = report.checks().iter();
        let checks = checks.filter(|own| own.finding != Finding::Ok);
        checks.map(|own| (own.check, own.finding)).collect()
    }

    #[test]
    fn clocks_that_are_apart_are_told_of() {
        let of = |millis| {
            not_fine(|report| report.clock("the database's", TimeDelta::milliseconds(millis)))
        };
        assert_eq!(of(400), []);
        assert_eq!(of(-1_500), [("clock", Finding::Warn)]);
        assert_eq!(of(3_600_000), [("clock", Finding::Fail)]);
    }

    #[test]
    fn settings_under_which_a_crash_takes_events_are_told_of() {
        let of = |settings: &'static [(&str, &str)]| {
            let setting = move |name: &str| {
                let mut own = settings.iter();
                own.find(|(own, _)| *own == name)
                    .map_or("", |(_, value)| value)
            };
            not_fine(|report| report.durability(&setting)).len()
        };
        assert_eq!(
            of(&[
                ("log_bin", "ON"),
                ("sync_binlog", "1"),
                ("innodb_flush_log_at_trx_commit", "1")
            ]),
            0
        );
        assert_eq!(
            of(&[
                ("log_bin", "ON"),
                ("sync_binlog", "0"),
                ("innodb_flush_log_at_trx_commit", "2")
            ]),
            2
        );
        assert_eq!(
            of(&[("log_bin", "OFF"), ("innodb_flush_log_at_trx_commit", "1")]),
            1
        );
    }
}
