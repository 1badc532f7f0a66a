//! How streams and subjects are called.
//!
//! | what | name |
//! |---|---|
//! | the stream of a partition | `<app>-events-<partition>` |
//! | an event of a history | `<app>.events.<history>.<partition>` |
//! | what tells that it is stored | `<app>.stored.<history>.<partition>` |

use tidelog_domain::{HistoryId, Partition};

/// The names of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The app's name as one token of a subject.
    app: String,
}

impl Names {
    pub(super) fn new(app: &str) -> Self {
        Self {
            // A dot would be the end of the token, and no app has a tilde in its name.
            app: app.replace('.', "~"),
        }
    }

    pub(super) fn stream(&self, partition: Partition) -> String {
        format!("{}-events-{partition}", self.app)
    }

    pub(super) fn subject(&self, history: HistoryId, partition: Partition) -> String {
        format!("{}.events.{history}.{partition}", self.app)
    }

    /// The subjects of `partition`, of all histories.
    pub(super) fn subjects(&self, partition: Partition) -> String {
        format!("{}.events.*.{partition}", self.app)
    }

    /// Where NATS repeats to what was stored under [`subjects`](Self::subjects).
    pub(super) fn repeated(&self, partition: Partition) -> String {
        format!("{}.stored.{{{{wildcard(1)}}}}.{partition}", self.app)
    }

    /// Where it is told what is stored of `history`, of all partitions.
    pub(super) fn news(&self, history: HistoryId) -> String {
        format!("{}.stored.{history}.*", self.app)
    }
}

#[cfg(test)]
mod tests {
    use tidelog_domain::HistoryId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn no_two_apps_share_a_name() {
        let (one, other) = (Names::new("a.b"), Names::new("a~b"));
        // That `a~b` is no app's name, the bus makes sure of.
        assert_eq!(one, other);
        let p7 = Partition::new(7);
        assert_eq!(one.stream(p7), "a~b-events-7");
        let history = HistoryId::new(Uuid::from_u128(1));
        let subject = one.subject(history, p7);
        assert_eq!(subject, "a~b.events.00000000000000000000000000000001.7");
        assert_eq!(one.subjects(p7), "a~b.events.*.7");
        assert_eq!(one.repeated(p7), "a~b.stored.{{wildcard(1)}}.7");
    }
}
