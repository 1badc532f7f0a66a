//! How many commands a second, and how many events a second onto the bus and into a read model, on real servers with their
//! default durability.
//!
//!     cargo bench --bench throughput                         # all of it, about five minutes
//!     cargo bench --bench throughput -- commands --seconds 2 # one part, shorter
//!     cargo bench --bench throughput -- --soak 10000000      # memory over a long run, some minutes
//!
//! Each figure stands beside a limit or a peer that is measured in the same run: machines differ and drift, so that only ratios
//! within one run mean anything. The servers are started for the run and removed after it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark fails loudly, and prints what it found"
)]

mod bare;
mod commands;
mod end_to_end;
mod handing_over;
mod http;
mod live;
mod messaging;
mod overload;
mod posts;
mod projecting;
mod reading;
mod relaying;
mod replaying;
mod services;
mod subscribing;
mod telemetry;

use std::time::Duration;

/// How long more is asked for than can be borne.
const OVERLOAD: Duration = Duration::from_secs(60);

/// What is asked for.
struct Arguments {
    commands: bool,
    projecting: bool,
    replay: bool,
    end_to_end: bool,
    reading: bool,
    live: bool,
    messaging: bool,
    overload: bool,
    relay: bool,
    subscription: bool,
    telemetry: bool,
    /// Another build of this bench, to measure beside this one what telemetry costs.
    beside: Option<String>,
    /// How many events are relayed and handled to see that memory stays flat; 0: none.
    soak: u64,
    /// How many clients, each with one command in flight.
    clients: Vec<usize>,
    /// How long each number of clients is measured.
    time: Duration,
    /// How many events are projected, and relayed.
    events: usize,
}

impl Arguments {
    fn parse() -> Self {
        let mut all = Self {
            commands: false,
            projecting: false,
            replay: false,
            end_to_end: false,
            reading: false,
            live: false,
            messaging: false,
            overload: false,
            relay: false,
            subscription: false,
            telemetry: false,
            beside: None,
            soak: 0,
            clients: vec![1, 16, 64, 256],
            time: Duration::from_secs(5),
            events: 100_000,
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            let mut number = || {
                given
                    .next()
                    .and_then(|text| text.parse().ok())
                    .expect("a number")
            };
            match argument.as_str() {
                "commands" => all.commands = true,
                "projecting" => all.projecting = true,
                "replay" => all.replay = true,
                "end-to-end" => all.end_to_end = true,
                "reading" => all.reading = true,
                "live" => all.live = true,
                "messaging" => all.messaging = true,
                "overload" => all.overload = true,
                "relay" => all.relay = true,
                "subscription" => all.subscription = true,
                "telemetry" => all.telemetry = true,
                "--beside" => all.beside = Some(given.next().expect("a program")),
                "--soak" => all.soak = number(),
                "--clients" => all.clients = vec![usize::try_from(number()).unwrap()],
                "--seconds" => all.time = Duration::from_secs(number()),
                "--events" => all.events = usize::try_from(number()).unwrap(),
                // What Cargo adds.
                "--bench" => {}
                other => {
                    panic!(
                        "{other}? It is: [commands] [relay] [subscription] [projecting] [replay] [end-to-end] [reading] [live] [messaging] [overload] [telemetry [--beside PROGRAM]] [--clients N] [--seconds N] [--events N] [--soak EVENTS]"
                    )
                }
            }
        }
        let parts = [
            &mut all.commands,
            &mut all.end_to_end,
            &mut all.live,
            &mut all.messaging,
            &mut all.overload,
            &mut all.projecting,
            &mut all.reading,
            &mut all.relay,
            &mut all.replay,
            &mut all.subscription,
            &mut all.telemetry,
        ];
        if all.soak == 0 && parts.iter().all(|part| !**part) {
            parts.into_iter().for_each(|part| *part = true);
        }
        all
    }
}

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [is_bare, address, url, collection] = &given[..]
        && is_bare == reading::BARE
    {
        runtime.block_on(reading::serve_bare(address, url, collection));
        return;
    }
    if let [is_measured, kind, collector, log, store, events] = &given[..]
        && is_measured == telemetry::MEASURED
    {
        let events = events.parse().expect("a number");
        runtime.block_on(telemetry::measured(kind, collector, log, store, events));
        return;
    }
    if let [is_peer, url, role, numbers @ ..] = &given[..]
        && is_peer == messaging::PEER
    {
        // The runtime that programs have, with a thread for the work, as Node.js has: three processes share the cores.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(messaging::peer(url, role, numbers));
        return;
    }
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, shared by the servers and the load\n");
    runtime.block_on(async {
        if arguments.commands {
            commands::measure(&arguments.clients, arguments.time).await;
        }
        if arguments.relay {
            relaying::measure(arguments.events).await;
        }
        if arguments.subscription {
            subscribing::measure(arguments.events, arguments.time).await;
        }
        if arguments.soak > 0 {
            subscribing::soak(arguments.soak).await;
        }
        if arguments.projecting {
            projecting::measure(arguments.events).await;
        }
        if arguments.replay {
            replaying::measure(arguments.events).await;
        }
        if arguments.end_to_end {
            end_to_end::measure(arguments.time).await;
        }
        if arguments.reading {
            reading::measure(arguments.time).await;
        }
        if arguments.live {
            live::measure(arguments.time).await;
        }
        if arguments.messaging {
            messaging::measure(arguments.events, arguments.time).await;
        }
        if arguments.overload {
            overload::measure(arguments.time, OVERLOAD).await;
        }
        if arguments.telemetry {
            telemetry::measure(arguments.events, arguments.beside.as_deref()).await;
        }
    });
}
