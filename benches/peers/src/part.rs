//! What can be measured by itself.

use clap::ValueEnum;
use serde::Serialize;

use crate::contenders::Kind;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// Commands on MySQL, beside the peers and the limit.
    Commands,
    /// Commands in an SQLite file, beside evento.
    File,
    /// In process, with idempotency keys, and over HTTP.
    Ways,
    /// All clients on one aggregate.
    Hot,
    /// The first command to a long stream.
    Loading,
    /// Events a second into a view.
    Views,
}

impl Part {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 6] = [
        Self::Commands,
        Self::File,
        Self::Ways,
        Self::Hot,
        Self::Loading,
        Self::Views,
    ];

    /// The heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Commands => "Commands on MySQL",
            Self::File => "Commands in an SQLite file (WAL, synchronous=FULL)",
            Self::Ways => "On MySQL: in process, with idempotency keys, over HTTP",
            Self::Hot => "All clients on one aggregate, on MySQL",
            Self::Loading => "The first command to a long stream",
            Self::Views => "Events into a view",
        }
    }

    /// Who takes part.
    pub(crate) const fn contenders(self) -> &'static [Kind] {
        match self {
            Self::Commands => &[
                Kind::MysqlEs,
                Kind::Evento,
                Kind::EventoMargin50ms,
                Kind::Tidelog,
                Kind::TidelogEntity,
            ],
            Self::File => &[Kind::Evento, Kind::Tidelog],
            Self::Ways => &[Kind::Tidelog, Kind::TidelogWithKeys, Kind::TidelogOverHttp],
            // A stream of evento ends at 65,535 events.
            Self::Hot => &[Kind::MysqlEs, Kind::Tidelog],
            Self::Loading => &[Kind::MysqlEs, Kind::TidelogWithoutSnapshots, Kind::Tidelog],
            Self::Views => &[Kind::MysqlEs, Kind::TidelogEntity],
        }
    }

    /// Who the others are compared with.
    pub(crate) const fn reference(self) -> Kind {
        match self {
            Self::Commands | Self::Hot | Self::Loading | Self::Views => Kind::MysqlEs,
            Self::File => Kind::Evento,
            Self::Ways => Kind::Tidelog,
        }
    }

    /// With how many clients, where nobody says.
    pub(crate) const fn clients(self) -> &'static [usize] {
        match self {
            Self::Commands => &[1, 16, 64, 256, 1024],
            Self::File => &[1, 16, 64, 256],
            Self::Ways | Self::Views => &[64],
            Self::Hot => &[256],
            Self::Loading => &[1],
        }
    }
}
