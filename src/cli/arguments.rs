//! What may stand on the command line. The settings' flags come from the table of settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use tidelog_query::{Compare, Only};

use super::exit;
use super::looking::{self, Looking};
use super::operating::{self, Operation};
use super::schema::Exporting;
use crate::settings::{Kind, SETTINGS, Setting};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Everything in one process on one file.
    Dev,
    /// The services, on the servers that the settings name.
    Serve,
    /// Brings the database to this program's version, or says what that would do.
    Migrate(Migrating),
    /// Builds a view anew.
    Replay(Replaying),
    /// Shows the views, or does something with their versions.
    Views(OfViews),
    /// Shows what is in the log.
    Look(Looking),
    /// Does something with the subscriptions.
    Operate(Operation),
    /// Says where a reaction goes on.
    Restart {
        /// Which.
        reaction: String,
        /// Where.
        from: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Checks the servers, or declares a new history.
    Doctor {
        /// Whether a new history is declared.
        new_history: bool,
        /// For programs.
        json: bool,
    },
    /// Shows the settings.
    Config {
        /// For programs.
        json: bool,
    },
    /// Writes what events, commands and views look like.
    Export(Exporting),
    /// Prints what a shell needs to complete the command line.
    Completions(Shell),
}

/// How the database is brought to this program's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Migrating {
    /// At once.
    Now,
    /// Not at all: it is only said what there is to do.
    DryRun {
        /// With the statements.
        sql: bool,
        /// For programs.
        json: bool,
    },
}

impl Migrating {
    fn read(matches: &ArgMatches) -> Self {
        match matches.get_flag("dry-run") {
            true => Self::DryRun {
                sql: matches.get_flag("sql"),
                json: matches.get_flag("json"),
            },
            false => Self::Now,
        }
    }

    fn arguments() -> [Arg; 3] {
        [
            switch(
                "dry-run",
                "Only say which migrations are due; nothing is made or changed",
            ),
            switch("sql", "Their statements too").requires("dry-run"),
            switch("json", "For programs: as JSON").requires("dry-run"),
        ]
    }
}

/// A view to be built anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaying {
    /// Which.
    pub(crate) view: String,
    /// What of it; all of it, if nothing is said.
    pub(crate) only: Option<Only>,
    /// How many events a second, at most.
    pub(crate) throttle: Option<NonZeroU32>,
    /// How it is compared with the log.
    pub(crate) compare: Compare,
    /// Whether the version before is kept until somebody says otherwise.
    pub(crate) keep: bool,
    /// How it is shown how far it is.
    pub(crate) progress: Shown,
}

/// Something to do with the versions of views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OfViews {
    /// Shows what there is of each.
    List {
        /// As JSON.
        json: bool,
    },
    /// Goes back to the version before.
    Rollback {
        /// Of this view.
        view: String,
        /// As JSON.
        json: bool,
    },
    /// Lets go of the version before.
    Clean {
        /// Of this view.
        view: String,
        /// As JSON.
        json: bool,
    },
}

impl OfViews {
    fn read(matches: &ArgMatches) -> (Self, &ArgMatches) {
        let view = |inner: &ArgMatches| inner.get_one("view").cloned().unwrap_or_default();
        let (name, inner) = match matches.subcommand() {
            Some((name, inner)) => (name, inner),
            None => ("", matches),
        };
        let json = inner.get_flag("json");
        let asked = match name {
            "rollback" => Self::Rollback {
                view: view(inner),
                json,
            },
            "clean" => Self::Clean {
                view: view(inner),
                json,
            },
            _ => Self::List { json },
        };
        (asked, inner)
    }

    fn command(settings: &[Arg]) -> Command {
        let of_one = |name, about| {
            let view = Arg::new("view").required(true).help("The view's name");
            let json = switch("json", "As JSON");
            let command = Command::new(name).about(about);
            command.arg(view).arg(json).args(settings)
        };
        Command::new("views")
            .about("Show which version of each view is read and how far replays are, or go back to the version before")
            .args_conflicts_with_subcommands(true)
            .arg(switch("json", "As JSON"))
            .args(settings)
            .subcommand(of_one(
                "rollback",
                "Go back to the version before the one that is read, which is kept in its turn",
            ))
            .subcommand(of_one(
                "clean",
                "Let go of the version that is kept for a rollback",
            ))
    }
}

/// How many documents are compared where nothing else is said.
pub(super) const SAMPLE: u32 = 1_000;

/// `none`, `counts`, `sample`, `full`, or how many documents are compared, about.
fn compare(text: &str) -> Result<Compare, String> {
    match text {
        "none" => Ok(Compare::Nothing),
        "counts" => Ok(Compare::Counts),
        "sample" => Ok(Compare::Sample(SAMPLE)),
        "full" => Ok(Compare::Full),
        number => match number.parse() {
            Ok(documents @ 1..) => Ok(Compare::Sample(documents)),
            _ => Err("it is none, counts, sample, full, or a number of documents".to_owned()),
        },
    }
}

/// How a command shows how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shown {
    /// By a bar, on a terminal.
    #[default]
    Bar,
    /// By a line of JSON a second.
    Json,
}

impl Replaying {
    fn read(matches: &ArgMatches) -> Self {
        let progress = matches.get_one::<String>("progress");
        let text = |name| matches.get_one::<String>(name).cloned();
        Self {
            view: matches.get_one("view").cloned().unwrap_or_default(),
            only: text("document")
                .map(Only::Document)
                .or_else(|| text("aggregate").map(Only::Aggregate)),
            throttle: matches.get_one("throttle").copied(),
            compare: matches
                .get_one("compare")
                .copied()
                .unwrap_or(Compare::Sample(SAMPLE)),
            keep: matches.get_flag("keep"),
            progress: match progress.map(String::as_str) {
                Some("json") => Shown::Json,
                _ => Shown::Bar,
            },
        }
    }

    fn arguments() -> [Arg; 7] {
        [
            Arg::new("view")
                .required(true)
                .help("The view's name, such as post"),
            Arg::new("document")
                .long("document")
                .value_name("KEY")
                .conflicts_with_all(["aggregate", "throttle", "compare", "keep"])
                .help("Only this document: it is folded from the log and put right where it is, in the version that is read"),
            Arg::new("aggregate")
                .long("aggregate")
                .value_name("ID")
                .conflicts_with_all(["throttle", "compare", "keep"])
                .help("Only the documents that events of this aggregate touch; its id, or its stream, such as post/7f3a"),
            Arg::new("throttle")
                .long("throttle")
                .value_name("EVENTS")
                .value_parser(value_parser!(NonZeroU32))
                .help("Fold so many events a second, at most: more than are written"),
            Arg::new("compare")
                .long("compare")
                .value_name("HOW")
                .value_parser(compare)
                .help(
                    "Compare it with the log before it is read: none, counts, sample (of 1000 documents, or so many as you say; \
                     the log is read once more), full (once more for every 100000 documents) [default: sample]",
                ),
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("Keep the version that is read until then for a rollback, longer than an hour: until `views clean`, or the next replay"),
            Arg::new("progress")
                .long("progress")
                .value_parser(["bar", "json"])
                .help("How far it is: a bar on a terminal, or a line of JSON a second on standard output [default: bar]"),
        ]
    }
}

/// The command line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// What is asked for.
    pub(crate) action: Action,
    /// The settings that were given as flags, by key.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// The settings file that was named.
    pub(crate) config: Option<PathBuf>,
}

impl Arguments {
    /// Reads the command line of the program `name`.
    ///
    /// # Errors
    ///
    /// What clap has to say about it; also the text of `--help` and `--version`.
    pub(crate) fn parse(
        name: &str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let matches = command(name).try_get_matches_from(arguments)?;
        let operation = matches.subcommand();
        let operation = operation.and_then(|(name, inner)| operating::operation(name, inner));
        if let Some((operation, mut said)) = operation {
            said.insert(0, &matches);
            return Ok(Self::of(Action::Operate(operation), &said));
        }
        let looking = matches.subcommand();
        let looking = looking.and_then(|(name, inner)| looking::looking(name, inner));
        if let Some((looking, mut said)) = looking {
            said.insert(0, &matches);
            return Ok(Self::of(Action::Look(looking), &said));
        }
        let (action, inner) = match matches.subcommand() {
            Some(("serve", inner)) => (Action::Serve, inner),
            Some(("migrate", inner)) => (Action::Migrate(Migrating::read(inner)), inner),
            Some(("replay", inner)) => (Action::Replay(Replaying::read(inner)), inner),
            Some(("views", outer)) => {
                let (action, inner) = OfViews::read(outer);
                return Ok(Self::of(Action::Views(action), &[&matches, outer, inner]));
            }
            Some(("restart", inner)) => (
                Action::Restart {
                    reaction: inner.get_one("reaction").cloned().unwrap_or_default(),
                    from: inner.get_one("from").cloned().unwrap_or_default(),
                    reason: inner.get_one("reason").cloned().unwrap_or_default(),
                },
                inner,
            ),
            Some(("doctor", inner)) => (
                Action::Doctor {
                    new_history: inner.get_flag("new-history"),
                    json: inner.get_flag("json"),
                },
                inner,
            ),
            Some(("config", inner)) => {
                let json = inner.get_flag("json");
                (Action::Config { json }, inner)
            }
            Some(("schema", outer)) => {
                let inner = outer.subcommand_matches("export").unwrap_or(outer);
                let action = Action::Export(Exporting::read(inner));
                return Ok(Self::of(action, &[&matches, inner]));
            }
            Some(("completions", inner)) => {
                let shell = inner.get_one("shell").copied().unwrap_or(Shell::Bash);
                // It has no settings of its own.
                return Ok(Self::of(Action::Completions(shell), &[&matches]));
            }
            Some((_, inner)) => (Action::Dev, inner),
            None => (Action::Dev, &matches),
        };
        Ok(Self::of(action, &[&matches, inner]))
    }

    /// `action`, with the settings that were `said`, of which the last count.
    fn of(action: Action, said: &[&ArgMatches]) -> Self {
        let flag = |key: &str| {
            let mut said = said.iter().rev();
            said.find_map(|matches| matches.get_one::<String>(key))
                .cloned()
        };
        Self {
            action,
            flags: SETTINGS
                .iter()
                .filter_map(|s| Some((s.key, flag(s.key)?)))
                .collect(),
            config: flag("config").map(PathBuf::from),
        }
    }
}

/// A flag without a value.
fn switch(name: &'static str, help: &'static str) -> Arg {
    let flag = Arg::new(name).long(name);
    flag.action(ArgAction::SetTrue).help(help)
}

/// The whole command line.
pub(super) fn command(name: &str) -> Command {
    Command::new(name.to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .about("An event-sourced service: without a command, `dev`")
        .after_help(exit::HELP)
        .args(settings())
        .subcommand(
            Command::new("dev")
                .about("Run everything in one process on one SQLite file, without any server")
                .args(settings()),
        )
        .subcommand(
            Command::new("serve")
                .about("Run the services, all or one --role, on the servers that the settings name")
                .args(settings()),
        )
        .subcommand(
            Command::new("migrate")
                .about("Bring the log's database to this program's version")
                .args(Migrating::arguments())
                .args(settings()),
        )
        .subcommand(
            Command::new("replay")
                .alias("rebuild")
                .about("Build a view anew from the log, beside the one being read, and switch to it")
                .args(Replaying::arguments())
                .args(settings()),
        )
        .subcommand(OfViews::command(&settings()))
        .subcommands(looking::commands(&settings()))
        .subcommands(operating::commands(&settings()))
        .subcommand(
            Command::new("restart")
                .about("Say where a reaction goes on: one that is held, or that is to do something again")
                .arg(Arg::new("reaction").required(true).help("Its name; with @ and the app's where it follows another"))
                .arg(
                    Arg::new("from").long("from").value_name("START").required(true).help(
                        "beginning, now, a time (2026-05-01T12:00:00Z), or a consistency token to start after",
                    ),
                )
                .arg(
                    Arg::new("reason").long("reason").value_name("TEXT").help("Why, for the record"),
                )
                .args(settings()),
        )
        .subcommand(
            Command::new("doctor")
                .about("Check the servers, the log, the views and the settings, and say what to do")
                .arg(switch(
                    "new-history",
                    "Declare that the log was restored or replaced: new bus keys, every view is replayed. Stop the services first",
                ))
                .arg(switch("json", "For programs: as JSON").conflicts_with("new-history"))
                .args(settings()),
        )
        .subcommand(
            Command::new("config")
                .about("Show what is set and by whom, secrets masked")
                .arg(switch("json", "For programs: as JSON"))
                .args(settings()),
        )
        .subcommand(Exporting::command(&settings()))
        .subcommand(
            Command::new("completions")
                .about("Print what a shell needs to complete this command line")
                .arg(
                    Arg::new("shell")
                        .required(true)
                        .value_parser(value_parser!(Shell))
                        .help("For example: completions bash > ~/.local/share/bash-completion/completions/NAME"),
                ),
        )
}

/// A flag for each setting, and one for the file.
fn settings() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A settings file; without it tidelog.toml is read when it is there");
    SETTINGS.iter().map(flag).chain([file]).collect()
}

/// The flag of a setting.
fn flag(setting: &'static Setting) -> Arg {
    let value = match setting.kind {
        Kind::SecretUrl => "URL",
        Kind::Address => "HOST:PORT",
        Kind::Path => "PATH",
        Kind::Duration => "TIME",
        Kind::Number | Kind::Fraction => "N",
        Kind::Bytes => "BYTES",
        Kind::Flag => "BOOL",
        Kind::Text | Kind::Secret => "TEXT",
    };
    let default = setting
        .default
        .map(|value| format!(" [default: {value}]"))
        .unwrap_or_default();
    let argument = match setting.kind {
        // What is said without a value is so.
        Kind::Flag => Arg::new(setting.key)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        _ => Arg::new(setting.key),
    };
    argument
        .long(setting.flag())
        .value_name(value)
        .help(format!(
            "{} [env: {}]{default}",
            setting.help,
            setting.env.join(", ")
        ))
}

#[cfg(test)]
mod tests {
    use super::super::operating::Target;
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::parse(
            "bank",
            format!("bank {line}")
                .split_whitespace()
                .map(OsString::from),
        )
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command("bank").debug_assert();
    }

    #[test]
    fn without_a_command_it_is_dev() {
        let arguments = parse("--entities dir").unwrap();
        assert_eq!(arguments.action, Action::Dev);
        assert_eq!(
            arguments.flags,
            BTreeMap::from([("entities", "dir".to_owned())])
        );
        assert_eq!(parse("dev").unwrap().action, Action::Dev);
    }

    #[test]
    fn rebuild_is_replay() {
        assert_eq!(
            parse("rebuild post").unwrap().action,
            parse("replay post").unwrap().action
        );
        assert!(parse("replay").is_err());
    }

    #[test]
    fn a_replay_says_how_fast_and_what_it_shows() {
        let replaying = |line| match parse(line).unwrap().action {
            Action::Replay(replaying) => replaying,
            other => panic!("{other:?}"),
        };
        let plain = replaying("replay post");
        assert_eq!((plain.throttle, plain.progress), (None, Shown::Bar));
        assert_eq!(plain.compare, Compare::Sample(1_000));
        assert!(!plain.keep);
        let full = replaying("replay post --compare full --keep");
        assert_eq!((full.compare, full.keep), (Compare::Full, true));
        let some = replaying("replay post --compare 20");
        assert_eq!(some.compare, Compare::Sample(20));
        assert!(parse("replay post --compare 0").is_err());
        assert!(parse("replay post --compare well").is_err());
        let slow = replaying("replay post --throttle 2000 --progress json");
        assert_eq!(slow.throttle, NonZeroU32::new(2_000));
        assert_eq!(slow.progress, Shown::Json);
        assert!(parse("replay post --throttle 0").is_err());
        assert!(parse("replay post --progress loud").is_err());
        assert_eq!(plain.only, None);
        let document = replaying("replay post --document 7f3a").only;
        assert_eq!(document, Some(Only::Document("7f3a".to_owned())));
        let aggregate = replaying("replay post --aggregate post/7f3a --progress json").only;
        assert_eq!(aggregate, Some(Only::Aggregate("post/7f3a".to_owned())));
        assert!(parse("replay post --document a --aggregate b").is_err());
        assert!(parse("replay post --document a --keep").is_err());
    }

    #[test]
    fn views_are_shown_or_gone_back_with() {
        let of_views = |line| match parse(line).unwrap().action {
            Action::Views(of_views) => of_views,
            other => panic!("{other:?}"),
        };
        let view = "post".to_owned();
        assert_eq!(of_views("views --json"), OfViews::List { json: true });
        assert_eq!(
            of_views("views clean post"),
            OfViews::Clean {
                view: view.clone(),
                json: false
            }
        );
        let rollback = OfViews::Rollback { view, json: true };
        assert_eq!(of_views("views rollback post --json"), rollback);
        assert!(parse("views rollback").is_err());
        let deep = parse("views rollback post --admin-addr h:1").unwrap();
        let address = deep.flags.get("admin_addr").map(String::as_str);
        assert_eq!(address, Some("h:1"));
    }

    #[test]
    fn operations_take_the_settings_of_every_level() {
        let operation = |line| match parse(line).unwrap().action {
            Action::Operate(operation) => operation,
            other => panic!("{other:?}"),
        };
        let retry = |target| Operation::Retry {
            name: "post".to_owned(),
            target,
            json: false,
        };
        let one = Target::One("post/1".to_owned());
        assert_eq!(operation("parked retry post post/1"), retry(one));
        assert_eq!(operation("parked retry post --all"), retry(Target::All));
        assert!(parse("parked retry post").is_err());
        assert!(parse("parked retry post 1 --all").is_err());
        assert!(parse("parked skip post 1").is_err());
        let listed = Operation::Subscriptions {
            by_partition: true,
            json: false,
        };
        assert_eq!(operation("subscriptions --by-partition"), listed);
        let parked = |limit| Operation::Parked {
            subscription: None,
            limit,
            json: false,
        };
        assert_eq!(operation("parked"), parked(100));
        assert_eq!(operation("parked list --limit 7"), parked(7));
        assert!(parse("parked skipped").is_err());
        assert_eq!(operation("parked --limit 4096"), parked(4_096));
        assert!(parse("parked --limit 0").is_err());
        assert!(parse("parked --limit 5 --json").is_err());
        assert!(parse("parked --json").is_ok());
        let deep = parse("subscriptions pause post --reason why --admin-addr h:1").unwrap();
        assert_eq!(
            deep.flags.get("admin_addr").map(String::as_str),
            Some("h:1")
        );
    }

    #[test]
    fn settings_may_come_before_the_command() {
        let log = |line| parse(line).unwrap().flags.get("log").cloned();
        for line in [
            "--log error parked",
            "--log error serve --role query",
            "--log error subscriptions pause post",
            "--log error parked show post 1",
            "parked --log error",
            "parked show post 1 --log error",
        ] {
            assert_eq!(log(line).as_deref(), Some("error"), "{line}");
        }
        // The last one counts.
        assert_eq!(
            log("--log info serve --log error").as_deref(),
            Some("error")
        );
        let migrate = parse("--config one.toml migrate").unwrap();
        assert_eq!(migrate.action, Action::Migrate(Migrating::Now));
        assert_eq!(migrate.config, Some("one.toml".into()));
        assert_eq!(parse("--log error").unwrap().action, Action::Dev);
    }

    #[test]
    fn a_restart_says_from_where() {
        let restart = Action::Restart {
            reaction: "mailer@blog".to_owned(),
            from: "now".to_owned(),
            reason: String::new(),
        };
        let arguments = parse("restart mailer@blog --from now").unwrap();
        assert_eq!(arguments.action, restart);
        assert!(parse("restart mailer").is_err());
    }

    #[test]
    fn a_dry_run_may_show_its_statements() {
        let migrating = |line| match parse(line).unwrap().action {
            Action::Migrate(migrating) => migrating,
            other => panic!("{other:?}"),
        };
        let dry = |sql, json| Migrating::DryRun { sql, json };
        assert_eq!(migrating("migrate --dry-run"), dry(false, false));
        assert_eq!(migrating("migrate --dry-run --sql"), dry(true, false));
        assert!(parse("migrate --sql").is_err());
    }

    #[test]
    fn completions_are_for_a_shell_that_is_known() {
        let asked = parse("completions zsh").unwrap();
        assert_eq!(asked.action, Action::Completions(Shell::Zsh));
        assert!(parse("completions").is_err());
    }

    #[test]
    fn events_are_shown_or_followed() {
        for line in [
            "events --type post.created --limit 7 --payload",
            "events --follow --stream post/1 --since 15m --json",
            "show post/1@3",
            "streams post --after post/1",
        ] {
            let looking = parse(line).unwrap().action;
            assert!(matches!(looking, Action::Look(_)), "{line}");
        }
        assert!(parse("events --follow --limit 7").is_err());
        assert!(parse("events --since yesterday").is_err());
        assert!(parse("show").is_err());
    }

    #[test]
    fn every_setting_is_a_flag() {
        let arguments = parse("serve --role query --query-addr h:1 --config f.toml").unwrap();
        assert_eq!(
            arguments.flags.get("role").map(String::as_str),
            Some("query")
        );
        assert_eq!(
            arguments.flags.get("query_addr").map(String::as_str),
            Some("h:1")
        );
        assert_eq!(arguments.config, Some("f.toml".into()));
        assert!(parse("serve --nonsense 1").is_err());
        for (said, value) in [
            ("--insecure-no-auth", Some("true")),
            ("--insecure-no-auth=false", Some("false")),
            ("", None),
        ] {
            let arguments = parse(&format!("serve {said} --role query")).unwrap();
            let flag = arguments.flags.get("insecure_no_auth");
            assert_eq!(flag.map(String::as_str), value, "{said}");
        }
    }
}
