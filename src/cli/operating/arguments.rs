//! What may stand on the command line behind `subscriptions` and `parked`.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// What is asked of the subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// How far they are.
    Subscriptions {
        /// Each partition, not only what they amount to.
        by_partition: bool,
        /// For programs.
        json: bool,
    },
    /// One is to stop.
    Pause {
        /// Which.
        name: String,
        /// Why; may be empty.
        reason: String,
        /// For programs.
        json: bool,
    },
    /// One is to go on.
    Resume {
        /// Which.
        name: String,
        /// For programs.
        json: bool,
    },
    /// What is set aside.
    Parked {
        /// Of this one only.
        subscription: Option<String>,
        /// How many lines at most; programs get all.
        limit: usize,
        /// For programs.
        json: bool,
    },
    /// One sequence that is set aside.
    Show {
        /// Of which subscription.
        name: String,
        /// Which.
        sequence: String,
        /// Whether the event's payload is shown too.
        payload: bool,
        /// For programs.
        json: bool,
    },
    /// What is set aside is to be tried again.
    Retry {
        /// Of which subscription.
        name: String,
        /// Which.
        target: Target,
        /// For programs.
        json: bool,
    },
    /// What was passed over.
    Skipped {
        /// Of which subscription.
        name: String,
        /// For programs.
        json: bool,
    },
    /// The first event of a sequence is to be passed over.
    Skip {
        /// Of which subscription.
        name: String,
        /// Which.
        sequence: String,
        /// Why.
        reason: String,
        /// Where, if it is set aside in several partitions.
        partition: Option<u16>,
        /// Which event it has to be.
        position: Option<u64>,
        /// For programs.
        json: bool,
    },
}

/// How many lines a list has where nobody says.
const DEFAULT_LINES: &str = "100";

/// What of that which is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This sequence.
    One(String),
    /// All.
    All,
}

/// The two commands; `settings` are the flags that all commands have.
pub(crate) fn commands(settings: &[Arg]) -> [Command; 2] {
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args(settings.to_vec())
    };
    [subscriptions(command), parked(command)]
}

fn subscriptions(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    let about = "Show how far the subscriptions are; pause and resume one";
    command("subscriptions", about)
        .arg(flag("by-partition", "Each partition by itself"))
        .arg(json())
        .args_conflicts_with_subcommands(true)
        .subcommand(
            command("pause", "Stop a subscription until it is resumed")
                .arg(name())
                .arg(reason().help("Why, for whoever finds it paused"))
                .arg(json()),
        )
        .subcommand(
            command("resume", "Let a subscription go on")
                .arg(name())
                .arg(json()),
        )
}

fn parked(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    let about = "Show what is set aside because it could not be handled; retry or skip it";
    command("parked", about)
        .args(of_the_list())
        .args_conflicts_with_subcommands(true)
        .subcommand(
            command(
                "list",
                "The same as without a command: show what is set aside",
            )
            .args(of_the_list()),
        )
        .subcommand(
            command("show", "Show one sequence and the event that it waits at")
                .arg(name())
                .arg(sequence().required(true))
                .arg(flag("payload", "The event's payload too"))
                .arg(json()),
        )
        .subcommand(
            command("retry", "Try a sequence again, in order, or all of them")
                .arg(name())
                .arg(
                    sequence()
                        .required_unless_present("all")
                        .conflicts_with("all"),
                )
                .arg(flag("all", "All that is set aside"))
                .arg(json()),
        )
        .subcommand(
            command("skipped", "Show the events that were passed over, and why")
                .arg(name())
                .arg(json()),
        )
        .subcommand(skip(command))
}

/// What may be said of the list of what is set aside.
fn of_the_list() -> [Arg; 3] {
    [
        Arg::new("subscription")
            .long("subscription")
            .value_name("NAME")
            .help("Of this subscription only"),
        number("limit", "At most so many; how many more there are is said")
            .value_parser(value_parser!(u32).range(1..))
            .default_value(DEFAULT_LINES)
            .conflicts_with("json"),
        json(),
    ]
}

fn skip(command: impl Fn(&'static str, &'static str) -> Command) -> Command {
    let about = "Pass over the first event of a sequence, and go on with the next";
    let several = "Where, if the sequence is set aside in several partitions";
    let position = "Only if the event is at this position";
    command("skip", about)
        .arg(name())
        .arg(sequence().required(true))
        .arg(
            reason()
                .required(true)
                .help("Why: it is kept with the event"),
        )
        .arg(number("partition", several).value_parser(value_parser!(u16)))
        .arg(number("position", position).value_parser(value_parser!(u64)))
        .arg(json())
}

fn name() -> Arg {
    Arg::new("name")
        .value_name("NAME")
        .required(true)
        .help("The subscription: a view's name, or a reaction's")
}

fn sequence() -> Arg {
    let help = "A sequence that is set aside: a document's id of a view, a stream of a reaction";
    Arg::new("sequence").value_name("SEQUENCE").help(help)
}

fn reason() -> Arg {
    Arg::new("reason").long("reason").value_name("TEXT")
}

fn json() -> Arg {
    flag("json", "For programs: as JSON")
}

fn number(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// What is asked for, when `command` is one of the two; with what was said where, the innermost last.
pub(crate) fn operation<'m>(
    command: &str,
    matches: &'m ArgMatches,
) -> Option<(Operation, Vec<&'m ArgMatches>)> {
    let inner = matches.subcommand();
    let said = match inner {
        Some((_, inner)) => vec![matches, inner],
        None => vec![matches],
    };
    let operation = match (command, inner) {
        ("subscriptions", None) => Operation::Subscriptions {
            by_partition: matches.get_flag("by-partition"),
            json: matches.get_flag("json"),
        },
        ("subscriptions", Some(("pause", inner))) => Operation::Pause {
            name: text(inner, "name"),
            reason: text(inner, "reason"),
            json: inner.get_flag("json"),
        },
        ("subscriptions", Some((_, inner))) => Operation::Resume {
            name: text(inner, "name"),
            json: inner.get_flag("json"),
        },
        ("parked", None) => parked_list(matches),
        ("parked", Some(("list", inner))) => parked_list(inner),
        ("parked", Some(("skipped", inner))) => Operation::Skipped {
            name: text(inner, "name"),
            json: inner.get_flag("json"),
        },
        ("parked", Some(("show", inner))) => Operation::Show {
            name: text(inner, "name"),
            sequence: text(inner, "sequence"),
            payload: inner.get_flag("payload"),
            json: inner.get_flag("json"),
        },
        ("parked", Some(("retry", inner))) => Operation::Retry {
            name: text(inner, "name"),
            target: match inner.get_one::<String>("sequence") {
                Some(sequence) => Target::One(sequence.clone()),
                None => Target::All,
            },
            json: inner.get_flag("json"),
        },
        ("parked", Some((_, inner))) => Operation::Skip {
            name: text(inner, "name"),
            sequence: text(inner, "sequence"),
            reason: text(inner, "reason"),
            partition: inner.get_one("partition").copied(),
            position: inner.get_one("position").copied(),
            json: inner.get_flag("json"),
        },
        _ => return None,
    };
    Some((operation, said))
}

fn parked_list(matches: &ArgMatches) -> Operation {
    Operation::Parked {
        subscription: matches.get_one("subscription").cloned(),
        limit: lines(matches),
        json: matches.get_flag("json"),
    }
}

/// How many lines are asked for.
fn lines(matches: &ArgMatches) -> usize {
    let limit = matches.get_one::<u32>("limit").copied();
    usize::try_from(limit.unwrap_or_default()).unwrap_or(usize::MAX)
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}
