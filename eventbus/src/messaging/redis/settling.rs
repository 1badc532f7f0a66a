//! Settling messages as done, several in one trip.

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
    /// The command that puts its reply.
    pub(super) reply: Option<Cmd>,
    /// Whether it is taken off the stream.
    pub(super) remove: bool,
}

/// How far one has come.
type Settled = Result<(), Failed>;

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
        let replies = handled.iter_mut().enumerate();
        let replies = replies.filter_map(|(number, one)| Some((number, one.reply.take()?)));
        let (numbers, mut commands): (Vec<_>, Vec<_>) = replies.unzip();
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

/// Notes which replies, of the messages of these numbers, were not put. One that Redis refuses, for want of room or because the address is no
/// inbox, would be refused at every try: its caller has none.
fn are_put(settled: &mut [Settled], numbers: &[usize], answers: Vec<Result<Value, Failed>>) {
    for (number, answer) in numbers.iter().zip(answers) {
        match answer {
            Err(failed) if failed.is_refused() => {
                tracing::warn!(error = causes(&failed), "a reply cannot be put");
            }
            Err(failed) => {
                if let Some(settled) = settled.get_mut(*number) {
                    *settled = Err(failed);
                }
            }
            Ok(_) => {}
        }
    }
}
