//! One socket, from the handshake to the close.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::end::End;
use super::message::{CommandMessage, SocketMessage, live_request};
use super::pace::Pace;
use super::queue::{Out, Place, Writing, queue};
use super::{Shown, SocketServices, SocketSettings, answer, subscription};
use crate::caller::Caller;
use crate::problem::{Problem, ProblemKind};
use crate::server::Peer;

/// When a client may try again what is too much now.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a client is waited for to close too: a stop is not held up by one that does not listen.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// How much is read at once: most messages are small, and every socket has such a buffer.
const READ_BYTES: usize = 8 * 1024;

/// How much is gathered before it is written.
const WRITE_BYTES: usize = 16 * 1024;

/// Who is at the other end of a socket.
pub(super) struct Asking {
    pub(super) caller: Caller,
    /// What was shown in the handshake to tell who it is.
    pub(super) shown: Option<Shown>,
    /// The address; none where the process itself asks.
    pub(super) peer: Option<Peer>,
}

/// A socket.
pub(super) struct Session<'a> {
    services: &'a SocketServices,
    settings: SocketSettings,
    asking: Asking,
    /// The commands that are being handled, and the subscriptions. Each ends with its last message.
    tasks: JoinSet<String>,
    /// What the client calls each of them.
    names: HashMap<Id, String>,
    /// All of them, by that.
    running: HashMap<String, Running>,
    commands: usize,
    /// What is said next, once there are bytes for it.
    said: Option<String>,
    /// Why subscriptions end that are ended here.
    why: &'static str,
}

/// A command that is being handled, or a subscription.
struct Running {
    task: AbortHandle,
    is_command: bool,
}

type Reading<S> = SplitStream<WebSocketStream<S>>;

impl<'a> Session<'a> {
    pub(super) fn new(
        services: &'a SocketServices,
        settings: SocketSettings,
        asking: Asking,
    ) -> Self {
        gauge!("tidelog_http_sockets").increment(1);
        Self {
            services,
            settings,
            asking,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            running: HashMap::new(),
            commands: 0,
            said: None,
            why: "unsubscribed",
        }
    }

    /// Serves the socket on `io`, until its client, an error or `stop` ends it.
    pub(super) async fn run<S>(mut self, io: S, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let settings = self.settings;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(settings.max_message_bytes))
            .max_frame_size(Some(settings.max_message_bytes));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (sink, mut incoming) = socket.split();
        let (out, waiting) = queue(&settings);
        let patience = Duration::from_millis(settings.write_timeout_ms);
        let mut writing = pin!(waiting.write(sink, patience));
        let end = tokio::select! {
            end = self.serve(&mut incoming, &out, stop) => end,
            _ = &mut writing => End::Stuck,
        };
        tracing::debug!(why = end.name(), "a WebSocket ends");
        counter!("tidelog_http_sockets_ended_total", "why" => end.name()).increment(1);
        let Some(close) = end.close() else {
            return;
        };
        let patience = Duration::from_millis(settings.close_timeout_ms);
        let saying = async {
            let _ = timeout(patience, self.finish(&out)).await;
            self.tasks.shutdown().await;
            out.close(close).await;
            drop(out);
        };
        let said = timeout(2 * patience, async { tokio::join!(saying, writing).1 });
        if let Ok(Some(sink)) = said.await {
            last_words(incoming, sink).await;
        }
    }

    /// Reads and answers, until something ends it.
    async fn serve<S>(
        &mut self,
        incoming: &mut Reading<S>,
        out: &Out,
        stop: &CancellationToken,
    ) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let idle = Duration::from_millis(self.settings.idle_timeout_ms);
        let mut looks = interval(Duration::from_millis(self.settings.ping_every_ms.max(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expired = pin!(until(self.asking.caller.expires_at()));
        let mut heard = Instant::now();
        let mut pace = Pace::new();
        let mut room: Option<Place> = None;
        loop {
            let is_due = pace.is_due();
            let is_free = room.is_some() && self.said.is_none();
            let reads = is_due && is_free && self.commands < self.settings.max_commands;
            let length = self.said.as_ref().map_or(0, String::len);
            tokio::select! {
                () = stop.cancelled() => return End::Stopping,
                () = &mut expired => return End::Expired,
                now = looks.tick() => {
                    if !reads {
                        // What nobody reads is no silence. A client that takes nothing has a bound of its own.
                        heard = now;
                    } else if now.duration_since(heard) >= idle {
                        return End::Idle;
                    } else {
                        // Where there is no room, there is no silence either.
                        out.ping();
                    }
                }
                place = out.place(), if room.is_none() => match place {
                    Ok(place) => room = Some(place),
                    Err(_) => return End::Stuck,
                },
                bytes = out.bytes(length), if self.said.is_some() => {
                    if let (Some(place), Some(said)) = (room.take(), self.said.take()) {
                        place.put(said, bytes);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id(), if is_free => {
                    self.said = self.ended(ended).await;
                }
                () = sleep_until(pace.next()), if !is_due => {}
                message = incoming.next(), if reads => {
                    heard = Instant::now();
                    // While the machine slept, the timer above did too.
                    if self.asking.caller.expires_at().is_some_and(|end| end <= SystemTime::now()) {
                        return End::Expired;
                    }
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            self.said = self.hear(&text, out).await;
                            if self.said.is_some() {
                                pace.count();
                            }
                        }
                        Some(Ok(Message::Binary(_))) => return End::Binary,
                        // What is sent back to a ping or a close is sent by reading on.
                        Some(Ok(_)) => pace.count(),
                        Some(Err(error)) => return End::of(&error),
                        None => return End::Left,
                    }
                }
            }
        }
    }

    /// Begins what a message asks for; the answer, where there is one at once.
    async fn hear(&mut self, text: &str, out: &Out) -> Option<String> {
        let (id, begun) = match SocketMessage::parse(text) {
            Ok(SocketMessage::Ping(value)) => return Some(answer::pong(&value)),
            Ok(SocketMessage::Unsubscribe { id }) => {
                let ended = self.unsubscribe(&id);
                (Some(id), ended)
            }
            Ok(SocketMessage::Subscribe {
                id,
                path,
                after,
                headers,
            }) => {
                let request = self.asked(live_request(path, after, headers));
                let begun = self.subscribe(&id, request, out);
                (Some(id), begun)
            }
            Ok(SocketMessage::Command { id, command }) => {
                let begun = self.command(&id, command);
                (Some(id), begun)
            }
            Err(problem) => (SocketMessage::id_of(text), Err(problem)),
        };
        match begun {
            Ok(()) => None,
            Err(problem) => Some(answer::problem(id.as_deref(), problem).await),
        }
    }

    /// Ends a subscription. The answer is its end: nothing is told of it after that.
    fn unsubscribe(&self, id: &str) -> Result<(), Problem> {
        let running = self.running.get(id).filter(|running| !running.is_command);
        let running = running.ok_or_else(|| {
            let what = "This socket has no subscription of this id.";
            Problem::new(ProblemKind::NotFound, what)
        })?;
        running.task.abort();
        Ok(())
    }

    fn subscribe(&mut self, id: &str, request: Request, out: &Out) -> Result<(), Problem> {
        self.require_new(id)?;
        let most = self.settings.max_subscriptions;
        if self.running.len() - self.commands >= most {
            let what = format!(
                "This socket has {most} subscriptions, and may have no more. End one of them, or open another socket."
            );
            return Err(Problem::new(ProblemKind::Overloaded, what).retry_after(RETRY_AFTER));
        }
        let queries = self.services.queries.clone();
        let told = subscription::tell(id.to_owned(), queries, request, out.clone());
        gauge!("tidelog_http_socket_subscriptions").increment(1);
        self.start(id, false, told);
        Ok(())
    }

    fn command(&mut self, id: &str, command: CommandMessage) -> Result<(), Problem> {
        self.require_new(id)?;
        let request = self.asked(command.into_request());
        let (commands, name) = (self.services.commands.clone(), id.to_owned());
        self.commands += 1;
        self.start(id, true, async move {
            let Ok(response) = commands.oneshot(request).await;
            answer::answer(&name, response).await
        });
        Ok(())
    }

    fn require_new(&self, id: &str) -> Result<(), Problem> {
        if !self.running.contains_key(id) {
            return Ok(());
        }
        let what = "This socket has a subscription, or a command that is not answered, of this id. Take another.";
        Err(Problem::new(ProblemKind::MalformedRequest, what))
    }

    fn start(
        &mut self,
        id: &str,
        is_command: bool,
        work: impl Future<Output = String> + Send + 'static,
    ) {
        let task = self.tasks.spawn(work);
        self.names.insert(task.id(), id.to_owned());
        self.running
            .insert(id.to_owned(), Running { task, is_command });
    }

    /// The request, of whoever opened the socket.
    fn asked(&self, mut request: Request) -> Request {
        let extensions = request.extensions_mut();
        extensions.insert(self.asking.caller.clone());
        if let Some(shown) = &self.asking.shown {
            extensions.insert(shown.clone());
        }
        if let Some(peer) = self.asking.peer {
            extensions.insert(peer);
        }
        request
    }

    /// Takes note of a task that has ended; its last message.
    async fn ended(&mut self, ended: Result<(Id, String), JoinError>) -> Option<String> {
        let (task, last) = match ended {
            Ok((task, last)) => (task, Ok(last)),
            Err(error) => (error.id(), Err(error)),
        };
        let id = self.names.remove(&task)?;
        let is_command = self.running.remove(&id)?.is_command;
        if is_command {
            self.commands -= 1;
        } else {
            gauge!("tidelog_http_socket_subscriptions").decrement(1);
        }
        Some(match last {
            Ok(last) => last,
            Err(error) if error.is_cancelled() => answer::ended(&id, self.why),
            Err(_) if is_command => answer::problem(Some(&id), Problem::internal()).await,
            Err(_) => answer::ended(&id, "failed"),
        })
    }

    /// Ends the subscriptions, and waits for the commands to be answered.
    async fn finish(&mut self, out: &Out) {
        self.why = "over";
        let running = self.running.values();
        for subscription in running.filter(|running| !running.is_command) {
            subscription.task.abort();
        }
        if let Some(said) = self.said.take()
            && out.send(said).await.is_err()
        {
            return;
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let last = self.ended(ended).await;
            if let Some(last) = last
                && out.send(last).await.is_err()
            {
                return;
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        gauge!("tidelog_http_sockets").decrement(1);
        let subscriptions = self.running.len() - self.commands;
        #[allow(clippy::cast_precision_loss, reason = "there are a few dozen of them")]
        gauge!("tidelog_http_socket_subscriptions").decrement(subscriptions as f64);
    }
}

/// Until a token counts no more.
async fn until(end: Option<SystemTime>) {
    match end {
        Some(end) => {
            let left = end.duration_since(SystemTime::now());
            sleep(left.unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

/// Reads on, for a moment, until the client has closed too, and then closes so that it can still read why.
async fn last_words<S>(mut incoming: Reading<S>, sink: Writing<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closed = async { while let Some(Ok(_)) = incoming.next().await {} };
    let _ = timeout(GOOD_BYE, closed).await;
    if let Ok(mut socket) = incoming.reunite(sink) {
        let _ = socket.get_mut().shutdown().await;
    }
}
