//! What there is to say of the bus, of the read models' store and of the disk under an SQLite file: pure.

#[cfg(any(feature = "redis", feature = "mongodb"))]
use chrono::{DateTime, Utc};

use super::report::Report;

/// Of how much of its memory Redis may use it is told, in percent, and when that is a failure: then events no longer get in.
#[cfg(feature = "redis")]
const MEMORY_WARN: u64 = 85;
#[cfg(feature = "redis")]
const MEMORY_FAIL: u64 = 97;

/// How large a write-ahead log may be until it is told: SQLite folds it back into the file at 4 MiB, unless somebody reads on and on.
const WAL_WARN: u64 = 1024 * 1024 * 1024;

/// How much of the disk has to be free.
const FREE_WARN: u64 = 1024 * 1024 * 1024;
const FREE_FAIL: u64 = 64 * 1024 * 1024;

/// An SQLite file, and the disk that it is on; bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// The file itself.
    pub(super) size: u64,
    /// Its write-ahead log.
    pub(super) wal: u64,
    /// What is free; `None` where that is not to be told.
    pub(super) free: Option<u64>,
}

impl Report {
    /// How much of the memory that it may use a Redis uses.
    #[cfg(feature = "redis")]
    pub(super) fn bus_memory(&mut self, used: Option<u64>, most: Option<u64>) {
        const CHECK: &str = "bus memory";
        let (Some(used), Some(most)) = (used, most) else {
            let found = "Redis has no bound (maxmemory): the machine's memory is the bound";
            let used = used.map(|used| format!("; it uses {}", bytes(used)));
            self.ok(CHECK, format!("{found}{}", used.unwrap_or_default()));
            return;
        };
        let percent = used.saturating_mul(100) / most.max(1);
        let found = format!(
            "Redis uses {} of {} (maxmemory): {percent} %",
            bytes(used),
            bytes(most)
        );
        let advice = "raise maxmemory, or lower bus_keep_bytes: when it is full, events no longer get in, and consumers read the log instead";
        match percent {
            MEMORY_FAIL.. => self.fail(CHECK, found, advice),
            MEMORY_WARN.. => self.warn(CHECK, found, advice),
            _ => self.ok(CHECK, found),
        }
    }

    /// What there is on the bus of other histories of the log.
    #[cfg(feature = "redis")]
    pub(super) fn other_histories(&mut self, streams: Option<u64>) {
        const CHECK: &str = "bus keys";
        match streams {
            Some(0) => self.ok(CHECK, "all are of the log's history"),
            Some(streams) => {
                let what = crate::cli::table::counted(streams, "stream");
                let found = format!(
                    "{what} of other histories, or of other logs of a program of this name: such go by themselves in 7 days"
                );
                self.ok(CHECK, found);
            }
            None => self.skip(
                CHECK,
                "not to be told: on a cluster, or without the right to SCAN",
            ),
        }
    }

    /// What keeps the read models from being lost.
    #[cfg(feature = "mongodb")]
    pub(super) fn read_model_durability(
        &mut self,
        is_router: bool,
        replica_set: Option<&str>,
        is_persistent: Option<bool>,
    ) {
        const CHECK: &str = "read models' durability";
        if is_persistent == Some(false) {
            let found = "the server's storage engine keeps nothing on a disk";
            let advice =
                "use WiredTiger; until then each restart of the server has all views built anew";
            self.warn(CHECK, found, advice);
            return;
        }
        let found = match (is_router, replica_set) {
            (true, _) => {
                "a sharded cluster: a write is in the journals of a majority of its shard before it counts"
                    .to_owned()
            }
            (false, Some(name)) => {
                format!("the replica set {name}: a write is in the journals of a majority before it counts")
            }
            (false, None) => {
                "a single server: a write is in its journal before it counts; nobody reads while it is away, and without its disk the \
                 views are built anew from the log"
                    .to_owned()
            }
        };
        self.ok(CHECK, found);
    }

    /// Whether there is room for an SQLite file to grow.
    pub(super) fn file(&mut self, file: File) {
        let File { size, wal, free } = file;
        if wal > WAL_WARN {
            let found = format!("the write-ahead log has {}", bytes(wal));
            let advice = "find out which program reads the file for hours (a shell of SQLite, a backup) and end it: only then can the \
                          log be folded back";
            self.warn("write-ahead log", found, advice);
        } else {
            self.ok("write-ahead log", format!("it has {}", bytes(wal)));
        }
        const CHECK: &str = "disk";
        let Some(free) = free else {
            self.skip(CHECK, "what is free is not to be told");
            return;
        };
        let found = format!("{} free; the file has {}", bytes(free), bytes(size));
        let advice = "make room: a replay builds a view beside the one that is read, and without room nothing can be written";
        match free {
            ..FREE_FAIL => self.fail(CHECK, found, advice),
            free if free < FREE_WARN.max(size / 2) => self.warn(CHECK, found, advice),
            _ => self.ok(CHECK, found),
        }
    }

    /// How far the clock of `whose` server, which said `at`, is from `now`; nothing where it said none.
    #[cfg(any(feature = "redis", feature = "mongodb"))]
    pub(super) fn clock_of(&mut self, whose: &str, at: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        if let Some(at) = at {
            self.clock(whose, now - at);
        }
    }
}

/// A size for people.
fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (size, 0, "bytes");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        (whole, unit) = (whole / 1024, next);
    }
    match unit {
        "bytes" => format!("{whole} bytes"),
        _ => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(all(test, feature = "redis", feature = "mongodb"))]
mod tests {
    use chrono::TimeDelta;

    use super::super::report::Finding;
    use super::*;

    /// How what `say` says comes out, check by check.
    fn findings(say: impl FnOnce(&mut Report)) -> Vec<(&'static str, Finding)> {
        let mut report = Report::default();
        say(&mut report);
        let checks = report.checks().iter();
        checks.map(|own| (own.check, own.finding)).collect()
    }

    #[test]
    fn memory_that_is_nearly_full_is_told_of() {
        let of = |used, most| findings(|report| report.bus_memory(Some(used), most))[0].1;
        assert_eq!(of(84, Some(100)), Finding::Ok);
        assert_eq!(of(85, Some(100)), Finding::Warn);
        assert_eq!(of(97, Some(100)), Finding::Fail);
        assert_eq!(of(97, None), Finding::Ok);
    }

    #[test]
    fn a_store_that_keeps_nothing_is_told_of() {
        let of = |persistent| {
            findings(|report| report.read_model_durability(false, Some("rs0"), persistent))[0].1
        };
        assert_eq!(of(Some(false)), Finding::Warn);
        assert_eq!(of(Some(true)), Finding::Ok);
        // Our user may not ask.
        assert_eq!(of(None), Finding::Ok);
    }

    #[test]
    fn a_disk_that_is_nearly_full_and_a_log_that_grows_are_told_of() {
        const GIB: u64 = 1024 * 1024 * 1024;
        let of = |size, wal, free| {
            let found = findings(|report| report.file(File { size, wal, free }));
            (found[0].1, found[1].1)
        };
        assert_eq!(of(GIB, 0, Some(9 * GIB)), (Finding::Ok, Finding::Ok));
        assert_eq!(
            of(GIB, 2 * GIB, Some(GIB - 1)),
            (Finding::Warn, Finding::Warn)
        );
        assert_eq!(of(40 * GIB, 0, Some(9 * GIB)), (Finding::Ok, Finding::Warn));
        assert_eq!(of(GIB, 0, Some(1024)), (Finding::Ok, Finding::Fail));
        assert_eq!(of(GIB, 0, None), (Finding::Ok, Finding::Skip));
    }

    #[test]
    fn clocks_of_all_servers_are_compared() {
        let now = DateTime::UNIX_EPOCH;
        let of = |at: Option<TimeDelta>| {
            findings(|report| report.clock_of("the bus'", at.map(|off| now + off), now))
        };
        assert_eq!(of(None), []);
        assert_eq!(of(Some(TimeDelta::milliseconds(900)))[0].1, Finding::Ok);
        assert_eq!(of(Some(TimeDelta::seconds(-5)))[0].1, Finding::Warn);
        assert_eq!(of(Some(TimeDelta::hours(1)))[0].1, Finding::Fail);
    }

    #[test]
    fn sizes_are_in_the_unit_that_says_them_best() {
        let sizes = [7, 1_024, 1_536, 5 * 1024 * 1024].map(bytes);
        assert_eq!(sizes, ["7 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB"]);
    }
}
