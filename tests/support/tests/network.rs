//! The proxy's network fails as it is told to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

use std::time::{Duration, Instant};

use tidelog_test_support::TcpProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough that an answer on loopback would have come.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that sends back what it is sent, and reports it.
async fn echo() -> (TcpProxy, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (report, reported) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let report = report.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 1024];
                while let Ok(read @ 1..) = client.read(&mut bytes).await {
                    report.send(bytes.get(..read).unwrap().to_vec()).ok();
                    client.write_all(bytes.get(..read).unwrap()).await.unwrap();
                }
            });
        }
    });
    (TcpProxy::start(port).await, reported)
}

async fn client(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap()
}

/// Sends `text` and returns what comes back: nothing when the connection was closed.
async fn ask(client: &mut TcpStream, text: &str) -> String {
    let mut answer = vec![0; text.len()];
    match client.write_all(text.as_bytes()).await {
        Ok(()) if client.read_exact(&mut answer).await.is_ok() => {
            String::from_utf8(answer).unwrap()
        }
        Ok(()) | Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_working_network_passes_everything_and_the_end_too() {
    let (proxy, _reported) = echo().await;
    let mut client = client(&proxy).await;
    assert_eq!(ask(&mut client, "hello").await, "hello");
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cut_closes_old_and_new_connections_until_it_passes_again() {
    let (proxy, _reported) = echo().await;
    let mut old = client(&proxy).await;
    assert_eq!(ask(&mut old, "before").await, "before");
    proxy.cut();
    assert_eq!(ask(&mut old, "during").await, "");
    assert_eq!(ask(&mut client(&proxy).await, "during").await, "");
    proxy.pass();
    assert_eq!(ask(&mut client(&proxy).await, "after").await, "after");
}

#[tokio::test]
async fn a_cut_that_is_over_at_once_still_closes_connections() {
    let (proxy, _reported) = echo().await;
    let mut old = client(&proxy).await;
    assert_eq!(ask(&mut old, "before").await, "before");
    proxy.cut();
    proxy.pass();
    assert_eq!(ask(&mut old, "after").await, "");
}

#[tokio::test]
async fn a_delay_holds_each_direction() {
    let (proxy, _reported) = echo().await;
    let mut client = client(&proxy).await;
    proxy.delay(Duration::from_millis(50));
    let asked = Instant::now();
    assert_eq!(ask(&mut client, "slow").await, "slow");
    assert!(asked.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_stalled_network_accepts_and_holds_everything() {
    let (proxy, mut reported) = echo().await;
    proxy.stall();
    let mut client = client(&proxy).await;
    client.write_all(b"held").await.unwrap();
    timeout(SILENCE, reported.recv())
        .await
        .expect_err("nothing reaches the server");
    proxy.pass();
    assert_eq!(reported.recv().await.unwrap(), b"held");
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 4);
}

#[tokio::test]
async fn a_half_closed_network_ends_the_answers_and_still_takes_requests() {
    let (proxy, mut reported) = echo().await;
    let mut client = client(&proxy).await;
    assert_eq!(ask(&mut client, "hello").await, "hello");
    reported.recv().await.unwrap();
    proxy.half_close();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    client.write_all(b"more").await.unwrap();
    assert_eq!(reported.recv().await.unwrap(), b"more");
}

#[tokio::test]
async fn a_lost_answer_is_one_whose_request_was_served() {
    let (proxy, mut reported) = echo().await;
    let (mut client, mut other) = (client(&proxy).await, client(&proxy).await);
    let lost = proxy.lose_answer_to(b"COMMIT");
    assert_eq!(ask(&mut client, "INSERT").await, "INSERT");
    assert_eq!(ask(&mut client, "do COMMIT").await, "");
    lost.await;
    assert_eq!(reported.recv().await.unwrap(), b"INSERT");
    assert_eq!(reported.recv().await.unwrap(), b"do COMMIT");
    assert_eq!(ask(&mut other, "COMMIT").await, "COMMIT");
}

#[tokio::test]
async fn what_is_held_reaches_the_server_although_its_client_is_gone() {
    let (proxy, mut reported) = echo().await;
    let mut client = client(&proxy).await;
    let held = proxy.stall_at(b"COMMIT");
    assert_eq!(ask(&mut client, "INSERT").await, "INSERT");
    assert_eq!(reported.recv().await.unwrap(), b"INSERT");
    client.write_all(b"do COMMIT").await.unwrap();
    held.await;
    drop(client);
    timeout(SILENCE, reported.recv())
        .await
        .expect_err("nothing reaches the server");
    proxy.pass();
    assert_eq!(reported.recv().await.unwrap(), b"do COMMIT");
}

#[tokio::test]
async fn a_url_is_led_through_the_proxy() {
    let (proxy, _reported) = echo().await;
    let url = proxy.url("mysql://root@127.0.0.1:3306/tidelog?ssl-mode=DISABLED");
    assert_eq!(
        url,
        format!(
            "mysql://root@127.0.0.1:{}/tidelog?ssl-mode=DISABLED",
            proxy.port()
        )
    );
}
