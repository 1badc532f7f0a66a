//! Settling messages as done, several in one trip. Replies that go to one inbox are one entry of it.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Value};
use tidelog_domain::causes;

use super::consumer::Stream;
use super::gathering::Gathering;
use super::{Failed, Link};
use crate::messaging::bus::EntryId;
use crate::messaging::names::Group;

/// A message that was handled.
pub(super) struct Handled {
    /// The number of its stream.
    pub(super) at: usize,
    pub(super) entry: EntryId,
    /// The address of its reply, and the reply.
    pub(super) reply: Option<(String, Vec<u8>)>,
    /// Whether it is taken off the stream.
    pub(super) remove: bool,
}

/// How far one has come.
type Settled = Result<(), Failed>;

/// A command that puts replies.
struct Put {
    command: Cmd,
    /// The numbers of the messages whose replies they are.
    numbers: Vec<usize>,
}

pub(super) struct Settling {
    link: Arc<Link>,
    group: Group,
    streams: Arc<[Stream]>,
    gathering: Arc<Gathering<Handled, ()>>,
}

impl Settling {
    pub(super) fn new(link: Arc<Link>, group: Group, streams: Arc<[Stream]>) -> Arc<Self> {
        Arc::new(Self {
            link,
            group,
            streams,
            gathering: Arc::default(),
        })
    }

    /// Puts the reply, of so many bytes, and settles it.
    pub(super) async fn done(self: &Arc<Self>, handled: Handled, bytes: usize) -> Settled {
        if self.link.is_cluster {
            // Each has its reply on another node, and one that hangs is to hold up nobody else.
            let settled = self.settle(vec![handled]).await?;
            return settled.into_iter().next().unwrap_or(Err(Failed::Ended));
        }
        let settling = Arc::clone(self);
        let run = move |handled| {
            let settling = Arc::clone(&settling);
            async move { settling.settle(handled).await }
        };
        self.gathering.run(handled, bytes, run).await
    }

    async fn settle(&self, mut handled: Vec<Handled>) -> Result<Vec<Settled>, Failed> {
        let mut settled = vec![Ok(()); handled.len()];
        let puts = self.puts(&mut handled);
        let (mut commands, numbers): (Vec<_>, Vec<_>) = puts
            .into_iter()
            .map(|put| (put.command, put.numbers))
            .unzip();
        if self.link.is_cluster {
            // What has no reply yet is not acknowledged.
            let put = self.link.run_each(std::mem::take(&mut commands)).await?;
            are_put(&mut settled, &numbers, put);
        }
        let replies = commands.len();
        let mut streams = Vec::new();
        let with_reply = handled.iter().zip(&settled).filter(|(_, put)| put.is_ok());
        for (at, end) in self.ends(with_reply.map(|(one, _)| one)) {
            streams.push(at);
            commands.push(end);
        }
        let mut answers = self.link.run_each(commands).await?;
        let ended = answers.split_off(replies.min(answers.len()));
        are_put(&mut settled, &numbers, answers);
        for (at, answer) in streams.into_iter().zip(ended) {
            if let Err(failed) = answer {
                let of_stream = handled.iter().zip(&mut settled);
                for (_, settled) in of_stream.filter(|(one, _)| one.at == at) {
                    *settled = Err(failed.clone());
                }
            }
        }
        Ok(settled)
    }

    /// What puts their replies: one entry for each inbox, where the form has room for it.
    fn puts(&self, handled: &mut [Handled]) -> Vec<Put> {
        let form = &self.link.form;
        let (mut puts, mut by_address) = (Vec::<Put>::new(), HashMap::new());
        for (number, one) in handled.iter_mut().enumerate() {
            let Some((address, reply)) = one.reply.take() else {
                continue;
            };
            let beside = by_address.get(&address).copied();
            if let Some(put) = beside.and_then(|at: usize| puts.get_mut(at))
                && form.add_reply(&mut put.command, put.numbers.len() + 1, &reply)
            {
                put.numbers.push(number);
                continue;
            }
            puts.push(Put {
                command: form.reply(&address, &reply),
                numbers: vec![number],
            });
            by_address.insert(address, puts.len() - 1);
        }
        puts
    }

    /// The commands that acknowledge these and take them off, with the number of the stream of each.
    fn ends<'h>(&self, handled: impl Iterator<Item = &'h Handled>) -> Vec<(usize, Cmd)> {
        let mut by_stream: HashMap<usize, (Cmd, Option<Cmd>)> = HashMap::new();
        for one in handled {
            let Some(stream) = self.streams.get(one.at) else {
                continue;
            };
            let (xack, xdel) = by_stream.entry(one.at).or_insert_with(|| {
                let mut xack = redis::cmd("XACK");
                xack.arg(&*stream.key).arg(self.group.as_str());
                (xack, None)
            });
            xack.arg(&*one.entry);
            if one.remove {
                let xdel = xdel.get_or_insert_with(|| {
                    let mut xdel = redis::cmd("XDEL");
                    xdel.arg(&*stream.key);
                    xdel
                });
                xdel.arg(&*one.entry);
            }
        }
        let ends = by_stream.into_iter();
        ends.flat_map(|(at, (xack, xdel))| {
            let both = [Some(xack), xdel].into_iter().flatten();
            both.map(move |command| (at, command))
        })
        .collect()
    }
}

/// Notes which replies, of the messages of these numbers, were not put. What Redis refuses, for want of room or because the address is no
/// inbox, would be refused at every try: its callers have none.
fn are_put(settled: &mut [Settled], numbers: &[Vec<usize>], answers: Vec<Result<Value, Failed>>) {
    for (numbers, answer) in numbers.iter().zip(answers) {
        let Err(failed) = answer else {
            continue;
        };
        if failed.is_refused() {
            let replies = numbers.len();
            tracing::warn!(replies, error = causes(&failed), "replies cannot be put");
            continue;
        }
        for number in numbers {
            if let Some(settled) = settled.get_mut(*number) {
                *settled = Err(failed.clone());
            }
        }
    }
}
