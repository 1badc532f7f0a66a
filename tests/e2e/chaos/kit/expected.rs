//! What the views come to, folded from nothing but the rows of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::Ground;
use crate::log::Row;
use crate::view::View;

/// The documents of both views, and the events.
pub(crate) struct Expected {
    views: [(&'static str, BTreeMap<String, Value>); 2],
    events: BTreeSet<String>,
}

/// What a document comes to.
#[derive(Default)]
struct Sum {
    count: u64,
    sum: u64,
    last: BTreeMap<String, i64>,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.count += 1;
        self.sum += row.payload["amount"].as_u64().unwrap_or_default();
        self.last.insert(row.id().to_owned(), row.version);
    }
}

impl Expected {
    /// The fold of the rows, a view's document by key; without those that `counts` leaves out of a document.
    pub(crate) fn of(rows: &[Row], counts: impl Fn(&Row, &str) -> bool) -> Self {
        crate::log::assert_dense(rows);
        let (mut sheets, mut clubs): (BTreeMap<_, Sum>, BTreeMap<_, Sum>) = Default::default();
        for row in rows {
            if counts(row, row.id()) {
                sheets.entry(row.id().to_owned()).or_default().add(row);
            }
            let groups = row.payload["groups"].as_array().unwrap();
            let groups: BTreeSet<_> = groups.iter().map(|group| group.as_str().unwrap()).collect();
            for group in groups {
                if counts(row, group) {
                    clubs.entry(group.to_owned()).or_default().add(row);
                }
            }
        }
        let sheet = |(id, Sum { count, sum, last }): (String, Sum)| {
            let last = last[&id];
            (
                id,
                json!({"count": count, "sum": sum, "last": last, "wrong": 0}),
            )
        };
        let club = |(id, Sum { count, sum, last })| {
            (
                id,
                json!({"count": count, "sum": sum, "last": last, "wrong": 0}),
            )
        };
        Self {
            views: [
                ("sheet", sheets.into_iter().map(sheet).collect()),
                ("club", clubs.into_iter().map(club).collect()),
            ],
            events: rows.iter().map(|row| row.event_id.clone()).collect(),
        }
    }

    /// Says what differs from it in the views.
    pub(crate) async fn compare(&self, ground: &Ground) -> Result<(), String> {
        for (name, expected) in &self.views {
            let documents = View::on(&ground.backends).await.documents(name).await;
            let found: BTreeMap<_, _> = documents
                .into_iter()
                .map(|(id, document)| (id, Value::Object(document.state)))
                .collect();
            // Doing something twice is not made good by waiting.
            for (id, state) in &found {
                let count = |value: Option<&Value>| value.and_then(|state| state["count"].as_u64());
                assert!(
                    count(Some(state)) <= count(expected.get(id)) && state["wrong"] == 0,
                    "{name} {id} is {state} instead of {:?}",
                    expected.get(id)
                );
            }
            let ids = found.keys().chain(expected.keys());
            let differs: Vec<_> = ids
                .filter(|id| found.get(*id) != expected.get(*id))
                .collect();
            if let Some(id) = differs.first() {
                let (is, should) = (found.get(*id), expected.get(*id));
                let count = differs.len();
                return Err(format!(
                    "{count} of {name} differ: {id} is {is:?} instead of {should:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether all events were seen, at least once.
    pub(super) fn all_seen(
        &self,
        seen: Vec<(String, String, i64, i64)>,
    ) -> Result<Vec<(String, String, i64, i64)>, String> {
        let ids: BTreeSet<_> = seen.iter().map(|(id, ..)| id.clone()).collect();
        assert!(
            ids.is_subset(&self.events),
            "an event that nobody wrote was seen"
        );
        let missing = self.events.len() - ids.len();
        if missing > 0 {
            return Err(format!("{missing} of {} are missing", self.events.len()));
        }
        Ok(seen)
    }

    /// Checks that the events of each stream were first seen in order.
    pub(super) fn assert_seen_in_order(&self, seen: &[(String, String, i64, i64)]) {
        let mut last: HashMap<&str, i64> = HashMap::new();
        for (_, stream, version, _) in seen {
            let last = last.entry(stream).or_default();
            assert!(
                *version <= *last + 1,
                "{stream} {version} was seen after {last}"
            );
            *last = (*last).max(*version);
        }
        eprintln!(
            "{} events; the reaction has seen {} again",
            self.events.len(),
            seen.len() - self.events.len()
        );
    }
}
