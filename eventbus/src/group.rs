//! Sharing the partitions of a subscription among the processes that run it.
//!
//! There is no list of members and nobody who decides for all: each process looks at the state records. A partition belongs to
//! who [asked for it](StateRecord::wanted_by) last, else to its owner. Who has at least two fewer than the fullest asks that one
//! for some; the owner finishes its batch, and gives them back for him alone. Each such change makes the shares more even, so it comes to an
//! end; two who ask for the same partition are told apart by the compare-and-set.

use std::collections::BTreeMap;

use tidelog_domain::Partition;

use crate::state::StateRecord;

/// One partition, as a process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// Which.
    pub partition: Partition,
    /// Its record, if there is one.
    pub record: Option<&'a StateRecord>,
    /// Whether it has changed within a lease, on the observer's clock.
    pub is_alive: bool,
}

impl<'a> Share<'a> {
    /// Who has it, or will.
    fn member(&self) -> Option<&'a str> {
        let record = self.record.filter(|record| !record.is_paused())?;
        let member = record.wanted_by.as_deref().or(record.owner.as_deref());
        member.filter(|_| self.is_alive)
    }
}

/// The partitions that `me` asks others for.
#[must_use]
pub fn to_ask_for(me: &str, shares: &[Share<'_>]) -> Vec<Partition> {
    let mut members: BTreeMap<&str, Vec<Partition>> = BTreeMap::from([(me, Vec::new())]);
    for share in shares {
        if let Some(member) = share.member() {
            members.entry(member).or_default().push(share.partition);
        }
    }
    let mut mine = members.remove(me).map_or(0, |mine| mine.len());
    let mut asked = Vec::new();
    while let Some(fullest) = members.values_mut().max_by_key(|theirs| theirs.len()) {
        if fullest.len() < mine + 2 {
            break;
        }
        asked.extend(fullest.pop());
        mine += 1;
    }
    asked
}

/// Whether `me` has as many partitions already as an even share is, so that others who have fewer may come first to one that is
/// free.
#[must_use]
pub fn has_share(me: &str, shares: &[Share<'_>]) -> bool {
    let mut members: BTreeMap<&str, usize> = BTreeMap::from([(me, 0)]);
    for member in shares.iter().filter_map(Share::member) {
        *members.entry(member).or_default() += 1;
    }
    let even = shares.len().div_ceil(members.len());
    members.get(me).is_some_and(|mine| *mine >= even)
}

#[cfg(test)]
mod tests {
    use tidelog_domain::HistoryId;

    use super::*;

    fn records(owners: &[&str]) -> Vec<StateRecord> {
        let free = StateRecord::at_start(HistoryId::new(uuid::Uuid::nil()));
        owners
            .iter()
            .map(|owner| match *owner {
                "" => free.clone(),
                owner => free.taken_by(owner),
            })
            .collect()
    }

    fn shares(records: &[StateRecord]) -> Vec<Share<'_>> {
        let shares = (0..).map(Partition::new).zip(records);
        shares
            .map(|(partition, record)| Share {
                partition,
                record: Some(record),
                is_alive: true,
            })
            .collect()
    }

    /// Lets each of `members` ask in turn, and hands over what was asked for, until nobody asks any more.
    fn settled(mut records: Vec<StateRecord>, members: &[&str]) -> Vec<usize> {
        for _ in 0..100 {
            let before = records.clone();
            for member in members {
                for partition in to_ask_for(member, &shares(&records)) {
                    let record = &mut records[partition.index()];
                    *record = record.wanted_by(member);
                }
            }
            for record in &mut records {
                if let Some(by) = record.wanted_by.clone() {
                    *record = record.released().taken_by(&by);
                }
            }
            if records == before {
                let count = |member: &&str| {
                    let own = records.iter();
                    own.filter(|record| record.owner.as_deref() == Some(member))
                        .count()
                };
                return members.iter().map(count).collect();
            }
        }
        panic!("they never stop asking each other");
    }

    #[test]
    fn newcomers_get_an_even_share() {
        let all = ["a"; 16];
        assert_eq!(settled(records(&all), &["a", "b"]), [8, 8]);
        let mut thirds = settled(records(&all), &["a", "b", "c"]);
        thirds.sort_unstable();
        assert_eq!(thirds, [5, 5, 6]);
        let many: Vec<_> = (0..20).map(|n| format!("m{n:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let shares = settled(records(&["m00"; 16]), &many);
        assert!(shares.iter().all(|share| *share <= 1), "{shares:?}");
        assert_eq!(shares.iter().sum::<usize>(), 16);
    }

    #[test]
    fn nobody_asks_for_more_than_half_of_the_difference() {
        let records = records(&["a", "a", "a", "b", "b"]);
        assert_eq!(to_ask_for("b", &shares(&records)), []);
        assert_eq!(to_ask_for("c", &shares(&records)).len(), 1);
    }

    #[test]
    fn the_dead_and_the_paused_are_asked_for_nothing() {
        let dead = records(&["a"; 4]);
        let mut seen = shares(&dead);
        for share in &mut seen {
            share.is_alive = false;
        }
        assert_eq!(to_ask_for("b", &seen), []);
        let paused: Vec<_> = dead.iter().map(|own| own.with_paused(true)).collect();
        assert_eq!(to_ask_for("b", &shares(&paused)), []);
    }

    #[test]
    fn who_has_its_share_lets_others_come_first() {
        let records = records(&["a", "a", "b", ""]);
        assert!(has_share("a", &shares(&records)));
        assert!(!has_share("b", &shares(&records)));
        assert!(!has_share("c", &shares(&records)));
    }
}
