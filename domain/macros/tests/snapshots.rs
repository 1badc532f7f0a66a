//! Which snapshots of an aggregate still fit, and which states have none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

extern crate tidelog_domain as tidelog;

use std::collections::BTreeSet;

use tidelog::{Decider, Lifecycle, NoSnapshot, Payload, State, TypedDecider};

/// Makes a module with an aggregate `counter` of this version and these fields, whose event has this version.
macro_rules! counter {
    ($module:ident, $state_version:literal, $event_version:literal, { $($field:tt)* }) => {
        mod $module {
            #![allow(dead_code, reason = "not every one is made")]

            use tidelog::Upcaster;
            use tidelog::prelude::*;

            #[data]
            #[derive(Default)]
            pub(super) struct Part {
                $($field)*
            }

            #[aggregate]
            pub(super) struct Counter {
                pub(super) parts: Vec<Part>,
            }

            #[commands]
            pub(super) enum CounterCommand {
                #[create]
                Start,
            }

            #[events("counter", upcasters = upcasters)]
            pub(super) enum CounterEvent {
                #[version($event_version)]
                Started,
            }

            fn upcasters() -> Vec<Upcaster> {
                (1..$event_version)
                    .map(|version| Upcaster::unchanged("counter.started", version))
                    .collect()
            }

            #[rejections]
            pub(super) enum CounterRejection {
                /// Never.
                Never,
            }

            impl Aggregate for Counter {
                const STATE_VERSION: u32 = $state_version;
                type Command = CounterCommand;
                type Event = CounterEvent;
                type Rejection = CounterRejection;

                fn decide(&self, command: CounterCommand, _: &Context) -> Decision<Self> {
                    match command {
                        CounterCommand::Start => Ok(vec![CounterEvent::Started]),
                    }
                }

                fn evolve(&mut self, _: &CounterEvent) {}
            }
        }
    };
}

counter!(base, 1, 1, { pub(super) a: u8 });
counter!(base_again, 1, 1, {
    /// Described otherwise.
    pub(super) a: u8,
});
counter!(of_a_later_version, 2, 1, { pub(super) a: u8 });
counter!(of_later_events, 1, 2, { pub(super) a: u8 });
counter!(with_another_field, 1, 1, { pub(super) a: u8, #[serde(default)] pub(super) b: u8 });
counter!(with_another_name, 1, 1, { pub(super) b: u8 });
counter!(with_what_is_not_written, 1, 1, { #[serde(skip)] pub(super) a: u8 });

#[test]
fn a_fingerprint_changes_with_the_shape_of_the_state_its_version_and_the_events() {
    macro_rules! fingerprint {
        ($module:ident) => {{
            let decider = TypedDecider::<$module::Counter>::new().unwrap();
            decider.snapshots().unwrap().fingerprint().to_owned()
        }};
    }
    assert_eq!(fingerprint!(base), fingerprint!(base_again));
    let different = [
        fingerprint!(base),
        fingerprint!(of_a_later_version),
        fingerprint!(of_later_events),
        fingerprint!(with_another_field),
        fingerprint!(with_another_name),
        fingerprint!(with_what_is_not_written),
    ];
    let distinct: BTreeSet<_> = different.iter().collect();
    assert_eq!(distinct.len(), different.len());
    assert!(different.iter().all(|one| one.len() <= 64));
}

#[test]
fn a_state_comes_back_as_it_was_or_has_no_snapshot() {
    let decider = TypedDecider::<base::Counter>::new().unwrap();
    let snapshots = decider.snapshots().unwrap();
    for (lifecycle, a) in [(Lifecycle::Live, 7), (Lifecycle::Ended, 8)] {
        let parts = vec![base::Part { a }];
        let frozen = snapshots.freeze(&State::new(lifecycle, base::Counter { parts }));
        let thawed = snapshots.thaw(&frozen.unwrap()).unwrap();
        assert_eq!(thawed.lifecycle(), lifecycle);
        assert_eq!(thawed.get::<base::Counter>().unwrap().parts[0].a, a);
    }
    assert!(snapshots.thaw(&Payload::from_stored(b"{}")).is_err());

    use with_what_is_not_written::{Counter, Part};
    let decider = TypedDecider::<Counter>::new().unwrap();
    let freeze = |a| {
        let parts = vec![Part { a }];
        let state = State::new(Lifecycle::Live, Counter { parts });
        decider.snapshots().unwrap().freeze(&state)
    };
    assert!(freeze(0).is_ok());
    assert!(matches!(freeze(7), Err(NoSnapshot::Changed)));
}
