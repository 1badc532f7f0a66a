//! How a socket ends.

use super::*;

#[tokio::test]
async fn what_is_no_message_ends_the_socket_with_a_code() {
    let site = start(
        SocketSettings {
            max_message_bytes: 1024,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let not_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(vec![1], OpCode::Data(Data::Reserved(3)), true);
    for (message, code) in [
        (Message::text("x".repeat(1025)), 1009),
        (Message::text("x".repeat(4 * 1024 * 1024)), 1009),
        (Message::binary(vec![1]), 1003),
        (Message::Frame(not_utf8), 1007),
        (Message::Frame(reserved), 1002),
    ] {
        let mut client = site.client().await;
        let shown = format!("{message:?}");
        // The server may close before all of it is sent.
        let _ = client.0.send(message).await;
        assert_eq!(
            client.closed().await,
            code,
            "{}",
            &shown[..shown.len().min(80)]
        );
    }
    let mut client = site.client().await;
    client.say(&json!({"ping": "x".repeat(900)})).await;
    client.hear().await;
}

#[tokio::test]
async fn a_silent_client_is_asked_and_then_closed() {
    let settings = SocketSettings {
        ping_every_ms: 20,
        idle_timeout_ms: 200,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    // Whoever answers pings, as every library does, stays.
    let mut lively = site.client().await;
    let mut pings = 0;
    while pings < 20 {
        pings += usize::from(lively.0.next().await.unwrap().unwrap().is_ping());
    }
    let stream = TcpStream::connect(site.address).await.unwrap();
    let mut silent = by_hand(stream).await;
    let mut said = Vec::new();
    let ended = tokio::time::timeout(BOUND, silent.read_to_end(&mut said)).await;
    ended.expect("it is closed").unwrap();
    assert!(said.starts_with(&[0x89, 0]), "a ping");
    let code = 4408_u16.to_be_bytes();
    assert!(said.windows(2).any(|two| two == code), "{said:?}");
}

/// A socket without anything that answers pings.
async fn by_hand(mut stream: TcpStream) -> TcpStream {
    let asked = "GET /ws HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test]
async fn a_token_that_counts_no_more_ends_the_socket_once_commands_are_answered() {
    let end = SystemTime::now() + Duration::from_millis(300);
    let site = start(SocketSettings::default(), Some(end)).await;
    let mut client = site.client().await;
    client.say(&command("1", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.say(&command("2", "/slow")).await;
    site.shared.go_on.notify_one();
    assert_eq!(client.hear().await["body"], "done");
    assert_eq!(client.closed().await, 4401);
    assert_eq!(
        site.shared.began.load(Ordering::SeqCst),
        1,
        "nothing begins after the end"
    );
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_says_good_bye() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.subscribe("1", "/posts").await;
    client.say(&command("2", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    site.stop.cancel();
    while client.hear().await != json!({"id": "1", "ended": "over"}) {}
    site.shared.go_on.notify_one();
    assert_eq!(client.hear().await["body"], "done");
    assert_eq!(client.closed().await, 1001);
    assert!(client.0.next().await.is_none());
    site.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_listen_holds_up_no_stop() {
    let site = start(SocketSettings::default(), None).await;
    let mut deaf = by_hand(TcpStream::connect(site.address).await.unwrap()).await;
    site.stop.cancel();
    let grace = Duration::from_millis(ServerSettings::default().grace_ms);
    let ended = tokio::time::timeout(grace / 2, site.served).await;
    ended.expect("long before the grace is over").unwrap();
    let mut said = Vec::new();
    deaf.read_to_end(&mut said).await.unwrap();
    assert!(said.windows(2).any(|two| two == 1001_u16.to_be_bytes()));
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let server = ServerSettings {
        grace_ms: 50,
        ..ServerSettings::default()
    };
    let site = start_on(SocketSettings::default(), None, server).await;
    let mut client = site.client().await;
    client.say(&command("2", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    site.stop.cancel();
    site.served.await.unwrap();
    while let Some(Ok(_)) = client.0.next().await {}
}
