//! What may stand on the command line behind `events`, `show`, `streams` and `audit`.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Looking {
    /// Events that fit.
    Events(Events),
    /// One event.
    Show {
        /// Its id, `category/id@version`, or `partition:position`.
        event: String,
        /// Whether the payload is shown.
        payload: bool,
        /// For programs.
        json: bool,
    },
    /// Streams by name.
    Streams {
        /// What their names begin with; without a `/` a category.
        prefix: String,
        /// After this one.
        after: Option<String>,
        /// How many at most.
        limit: u32,
        /// For programs.
        json: bool,
    },
    /// One stream, and what it was.
    Stream {
        /// Its name.
        stream: String,
        /// At this version; the last, if none is said.
        at: Option<u64>,
        /// For programs.
        json: bool,
    },
    /// What is different between two versions of a stream.
    Difference {
        /// Its name.
        stream: String,
        /// The one before, and the one after.
        versions: (u64, u64),
        /// For programs.
        json: bool,
    },
    /// What was done in the administration.
    Audit {
        /// Before this entry.
        before: Option<u64>,
        /// How many at most.
        limit: u32,
        /// For programs.
        json: bool,
    },
}

/// Which events, and how they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Whether those are shown too that are yet to come.
    pub(super) follow: bool,
    /// The parameters of the question, as the administration takes them.
    pub(super) parameters: Vec<(&'static str, String)>,
    /// Whether the oldest come first.
    pub(super) oldest: bool,
    /// How many at most.
    pub(super) limit: u32,
    /// Whether payloads are shown.
    pub(super) payload: bool,
    /// For programs: a line of JSON each.
    pub(super) json: bool,
}

/// The parameters that go to the administration as they are.
const PARAMETERS: [&str; 7] = [
    "type",
    "stream",
    "tenant",
    "correlation",
    "causation",
    "since",
    "until",
];

/// The four commands; `settings` are the flags that all commands have.
pub(crate) fn commands(settings: &[Arg]) -> [Command; 4] {
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args(settings.to_vec())
    };
    [
        events(command),
        show(command),
        streams(command),
        audit(command),
    ]
}

fn events(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let time = |name, help| text(name, "TIME", help).value_parser(when);
    command(
        "events",
        "Show events of the log, the newest first; or follow them as they happen",
    )
    .arg(
        flag(
            "follow",
            "Show those that are yet to come too, until Ctrl-C",
        )
        .short('f'),
    )
    .arg(text("type", "NAME", "Of this name, such as post.created"))
    .arg(text(
        "stream",
        "STREAM",
        "Of this stream, such as post/7f3a",
    ))
    .arg(text("tenant", "NAME", "Of this tenant"))
    .arg(text("correlation", "ID", "With this correlation id"))
    .arg(text("causation", "ID", "Caused by this command"))
    .arg(time(
        "since",
        "Recorded then or later: 2026-05-01T12:00:00Z, or 90s, 15m, 2h, 3d ago",
    ))
    .arg(time("until", "Recorded before then").conflicts_with("follow"))
    .arg(flag("oldest", "The oldest first").conflicts_with("follow"))
    .arg(limit("events", "50").conflicts_with("follow"))
    .arg(flag("payload", "Their payloads too"))
    .arg(flag("json", "For programs: a CloudEvent a line, as JSON"))
}

fn show(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    command(
        "show",
        "Show one event, and what happened because of the same request",
    )
    .arg(Arg::new("event").value_name("EVENT").required(true).help(
        "Its id, or its stream and version (post/7f3a@3), or its partition and position (12:481)",
    ))
    .arg(flag("payload", "Its payload too"))
    .arg(flag("json", "For programs: as JSON"))
}

fn streams(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    command(
        "streams",
        "List the streams of the log by name, with their versions",
    )
    .arg(
        Arg::new("prefix")
            .value_name("PREFIX")
            .help("A category, such as post; or what the names begin with, such as post/7f"),
    )
    .arg(
        Arg::new("after")
            .long("after")
            .value_name("STREAM")
            .help("Those after this one"),
    )
    .arg(limit("streams", "100"))
    .arg(flag("json", "For programs: as JSON"))
    .args_conflicts_with_subcommands(true)
    .subcommand(one_stream(command))
}

fn one_stream(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    let version = |name: &'static str| {
        let version = Arg::new(name).long(name);
        version.value_parser(value_parser!(u64))
    };
    command(
        "show",
        "Show the events of one stream, and what its aggregate was after them",
    )
    .arg(
        Arg::new("stream")
            .value_name("STREAM")
            .required(true)
            .help("A category and an id, such as post/7f3a"),
    )
    .arg(
        version("at")
            .value_name("VERSION")
            .help("As it was at this version"),
    )
    .arg(
        version("diff")
            .num_args(2)
            .value_names(["VERSION", "VERSION"])
            .conflicts_with("at")
            .help("What changed from the one version to the other; 0 is before the first event"),
    )
    .arg(flag("json", "For programs: as JSON"))
}

fn audit(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    command(
        "audit",
        "Show what was done in the administration, by whom, and what came of it, the last first",
    )
    .arg(
        Arg::new("before")
            .long("before")
            .value_name("NUMBER")
            .value_parser(value_parser!(u64))
            .help("What was done before this entry"),
    )
    .arg(limit("entries", "50"))
    .arg(flag("json", "For programs: as JSON"))
}

fn limit(what: &str, default: &'static str) -> Arg {
    Arg::new("limit")
        .long("limit")
        .value_name("N")
        .value_parser(value_parser!(u32).range(1..))
        .default_value(default)
        .help(format!("At most so many {what}"))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// Reads a time, or how long ago it is.
fn when(text: &str) -> Result<String, String> {
    let wanted =
        || "it is a time such as 2026-05-01T12:00:00Z, or 90s, 15m, 2h or 3d ago".to_owned();
    let time = match text.parse::<DateTime<Utc>>() {
        Ok(time) => time,
        Err(_) => ago(text).ok_or_else(wanted)?,
    };
    Ok(time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn ago(text: &str) -> Option<DateTime<Utc>> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number.parse::<u32>().ok()?.into();
    let span = match unit {
        "s" => TimeDelta::try_seconds(number),
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        _ => None,
    };
    Utc::now().checked_sub_signed(span?)
}

/// What is to be looked at, when `command` is one of the four; with what was said where, the innermost last.
pub(crate) fn looking<'m>(
    command: &str,
    matches: &'m ArgMatches,
) -> Option<(Looking, Vec<&'m ArgMatches>)> {
    if let ("streams", Some((_, inner))) = (command, matches.subcommand()) {
        return Some((stream(inner), vec![matches, inner]));
    }
    Some((looking_at(command, matches)?, vec![matches]))
}

/// What of a stream is to be looked at.
fn stream(matches: &ArgMatches) -> Looking {
    let stream = matches.get_one("stream").cloned().unwrap_or_default();
    let json = matches.get_flag("json");
    let mut versions = matches.get_many::<u64>("diff").into_iter().flatten();
    match (versions.next(), versions.next()) {
        (Some(before), Some(after)) => Looking::Difference {
            stream,
            versions: (*before, *after),
            json,
        },
        _ => Looking::Stream {
            stream,
            at: matches.get_one("at").copied(),
            json,
        },
    }
}

fn looking_at(command: &str, matches: &ArgMatches) -> Option<Looking> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let limit = || matches.get_one("limit").copied().unwrap_or(1);
    Some(match command {
        "events" => {
            let given = |name: &'static str| Some((name, text(name)?));
            Looking::Events(Events {
                follow: matches.get_flag("follow"),
                parameters: PARAMETERS.into_iter().filter_map(given).collect(),
                oldest: matches.get_flag("oldest"),
                limit: limit(),
                payload: matches.get_flag("payload"),
                json: matches.get_flag("json"),
            })
        }
        "show" => Looking::Show {
            event: text("event").unwrap_or_default(),
            payload: matches.get_flag("payload"),
            json: matches.get_flag("json"),
        },
        "streams" => Looking::Streams {
            prefix: text("prefix").unwrap_or_default(),
            after: text("after"),
            limit: limit(),
            json: matches.get_flag("json"),
        },
        "audit" => Looking::Audit {
            before: matches.get_one("before").copied(),
            limit: limit(),
            json: matches.get_flag("json"),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_so_long_ago() {
        let exact = when("2026-05-01T12:00:00+02:00").unwrap();
        assert_eq!(exact, "2026-05-01T10:00:00.000000Z");
        let ago: DateTime<Utc> = when("90s").unwrap().parse().unwrap();
        let since = Utc::now() - ago;
        assert!(since >= TimeDelta::seconds(89) && since < TimeDelta::minutes(10));
        for wrong in ["", "s", "90", "90x", "-1s", "99999999999d", "é"] {
            assert!(when(wrong).is_err(), "{wrong}");
        }
    }
}
