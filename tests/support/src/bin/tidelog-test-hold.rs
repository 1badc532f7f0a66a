//! Starts a server and a program, prints the number of each and the server's directory, and holds them until it is
//! killed: what the test of their end needs.

use std::process::Command;

use tidelog_test_support::{Engine, Process, Server};

#[tokio::main]
#[expect(
    clippy::print_stdout,
    reason = "its output is for the test that started it"
)]
async fn main() {
    let server = Server::start(Engine::Redis).await;
    let mut command = Command::new("sleep");
    command.arg("3600");
    let process = Process::start(command);
    println!(
        "holding {} {} {}",
        server.process_id().unwrap_or_default(),
        process.id(),
        server.dir().display()
    );
    std::future::pending::<()>().await;
}
