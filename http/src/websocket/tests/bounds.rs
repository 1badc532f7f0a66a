//! What one client may have, and what one who does not read costs.

use super::*;

#[tokio::test]
async fn no_more_is_read_than_is_handled_at_a_time() {
    let site = start(
        SocketSettings {
            max_commands: 2,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let mut client = site.client().await;
    for id in 0..5 {
        client.say(&command(&id.to_string(), "/slow")).await;
    }
    let mut answered = 0;
    while answered < 5 {
        let most = (answered + 2).min(5);
        until_so(|| site.shared.began.load(Ordering::SeqCst) >= most).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(site.shared.began.load(Ordering::SeqCst), most);
        site.shared.go_on.notify_one();
        assert_eq!(client.hear().await["status"], 200);
        answered += 1;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_no_more_and_then_given_up() {
    let server = ServerSettings {
        write_timeout_ms: 500,
        ..ServerSettings::default()
    };
    let settings = SocketSettings {
        max_queued: 2,
        ..SocketSettings::default()
    };
    let site = start_on(settings, None, server).await;
    let mut deaf = site.client().await;
    for id in 0..60 {
        deaf.subscribe(&id.to_string(), "/endless").await;
    }
    // From now on it does not read.
    site.shared.flows.cancel();
    let mut other = site.client().await;
    other.subscribe("1", "/posts").await;
    // As much as the systems' buffers and the queue take, and then nothing.
    let mut polled = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = site.shared.polled.load(Ordering::SeqCst);
        if now == polled && now > 0 {
            break;
        }
        polled = now;
    }
    assert!(polled < 40, "{polled} pieces, of 60 live queries");
    other.say(&json!({"ping": 1})).await;
    while other.hear().await != json!({"pong": 1}) {}
    // It loses its connection, whatever it reads afterwards.
    let mut ended = false;
    tokio::time::sleep(Duration::from_secs(2)).await;
    while !ended {
        ended = !matches!(deaf.0.next().await, Some(Ok(_)));
    }
}

/// How much a network takes that takes next to nothing.
const NARROW_BYTES: usize = 1024;

/// A socket over a network that takes next to nothing until its client reads.
struct Narrow {
    client: WebSocketStream<DuplexStream>,
    shared: Shared,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn narrow(settings: SocketSettings) -> Narrow {
    let (shared, stop) = (Shared::default(), CancellationToken::new());
    let services = SocketServices {
        commands: commands(&shared),
        queries: queries(&shared),
    };
    let asking = Asking {
        caller: Caller::anybody(),
        shown: None,
        peer: None,
    };
    let (here, there) = tokio::io::duplex(NARROW_BYTES);
    let stopped = stop.clone();
    let served = tokio::spawn(async move {
        let session = Session::new(&services, settings, asking);
        session.run(there, &stopped).await;
    });
    let client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
    Narrow {
        client,
        shared,
        stop,
        served,
    }
}

impl Narrow {
    async fn say(&mut self, message: &Value) {
        let message = Message::text(message.to_string());
        self.client.send(message).await.unwrap();
    }

    /// The next message that is no ping.
    async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(BOUND, self.client.next()).await;
            match message.expect("a message in time").unwrap().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn an_answer_that_waits_for_bytes_comes_before_the_close() {
    let mut socket = narrow(SocketSettings {
        max_queued_bytes: 1,
        ..SocketSettings::default()
    })
    .await;
    // The first is being written, and the second waits for its bytes.
    for id in ["1", "2"] {
        let mut command = command(id, "/echo");
        command["command"]["body"] = json!("x".repeat(4 * NARROW_BYTES));
        socket.say(&command).await;
    }
    // Nothing tells that it waits.
    tokio::time::sleep(Duration::from_millis(200)).await;
    socket.stop.cancel();
    let mut answered = HashSet::new();
    for _ in 0..2 {
        let answer = socket.hear().await;
        assert_eq!(answer["status"], 201, "{answer}");
        answered.insert(answer["id"].to_string());
    }
    assert_eq!(answered.len(), 2);
    assert!(socket.next().await.is_close());
    socket.served.await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_client_has_few_bytes_however_many_messages_may_wait() {
    let mut socket = narrow(SocketSettings {
        max_queued_bytes: ENDLESS_BYTES / 2,
        ..SocketSettings::default()
    })
    .await;
    for id in 0..40 {
        let subscribe = json!({"id": id.to_string(), "subscribe": "/endless"});
        socket.say(&subscribe).await;
        assert_eq!(socket.hear().await["status"], 200);
    }
    let shared = socket.shared.clone();
    let polled = || shared.polled.load(Ordering::SeqCst);
    shared.flows.cancel();
    // One is being written, and one waits.
    until_so(|| polled() >= 2).await;
    // All of them go on as it reads, and so do answers, and there are never more.
    socket.say(&json!({"ping": 1})).await;
    let (mut heard, mut told, mut is_answered) = (0, HashSet::new(), false);
    while told.len() < 40 || !is_answered {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(polled() <= heard + 2, "{} after {heard}", polled());
        let message = socket.hear().await;
        is_answered |= message == json!({"pong": 1});
        if let Some(id) = message["id"].as_str() {
            heard += 1;
            told.insert(id.to_owned());
        }
    }
    drop(socket.client);
    socket.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_reads_slowly_and_steadily_is_told_on() {
    let settings = SocketSettings {
        write_timeout_ms: 3_000,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    let mut socket = site.client().await;
    socket.subscribe("1", "/endless").await;
    site.shared.flows.cancel();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(3 * settings.write_timeout_ms) {
        assert_eq!(socket.hear().await["event"], "changed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_begins_nothing_is_read_at_a_pace() {
    let site = start(SocketSettings::default(), None).await;
    let mut socket = site.client().await;
    let begun = tokio::time::Instant::now();
    for round in 0..10 {
        for _ in 0..10 {
            socket.say(&json!({"ping": round})).await;
            socket.say(&json!({"id": "x", "unsubscribe": true})).await;
            socket.say(&json!({"nothing": 1})).await;
        }
        for _ in 0..30 {
            socket.hear().await;
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
}

#[tokio::test]
async fn one_tenant_or_one_who_signs_in_has_a_quarter_of_the_sockets() {
    let settings = SocketSettings {
        max_sockets: 8,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    let open = async |who: &str| {
        let token = format!("Bearer {who}");
        site.handshake(&[("authorization", &token)]).await
    };
    for ([one, two], other) in [
        (["acme/ann", "acme/bob"], "beta/ann"),
        (["ann", "ann"], "bob"),
    ] {
        let (first, second) = (open(one).await.unwrap(), open(two).await.unwrap());
        for third in [one, two] {
            let Some(tungstenite::Error::Http(refused)) = open(third).await.err() else {
                unreachable!("a third socket of {third}");
            };
            assert_eq!(refused.status(), 429, "{third}");
            assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
            let problem: Value = serde_json::from_slice(refused.body().as_ref().unwrap()).unwrap();
            assert_eq!(problem["type"], "urn:tidelog:problem:rate-limited");
            assert!(problem["detail"].as_str().unwrap().contains("2 WebSockets"));
        }
        open(other).await.unwrap();
        // Its share is its own again when one is closed.
        drop(second);
        let closed = async {
            while open(two).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, closed).await.unwrap();
        drop(first);
    }
}

#[tokio::test]
async fn a_socket_keeps_its_place_among_the_connections_and_among_the_sockets() {
    let settings = SocketSettings {
        max_sockets: 1,
        ..SocketSettings::default()
    };
    let server = ServerSettings {
        max_connections: 2,
        ..ServerSettings::default()
    };
    let site = start_on(settings, None, server).await;
    let first = site.client().await;
    let token = [("authorization", "Bearer ann")];
    match site.handshake(&token).await.err() {
        Some(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 503),
        other => unreachable!("{other:?}"),
    }
    // One place is the socket's: of two more connections only one is served.
    let mut second = TcpStream::connect(site.address).await.unwrap();
    let asked = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    second.write_all(asked).await.unwrap();
    second.read_u8().await.unwrap();
    let mut third = TcpStream::connect(site.address).await.unwrap();
    third.write_all(asked).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), third.read_u8()).await;
    assert!(waits.is_err());
    drop(first);
    third.read_u8().await.unwrap();
    drop((second, third));
    loop {
        if site.handshake(&token).await.is_ok() {
            return;
        }
    }
}
