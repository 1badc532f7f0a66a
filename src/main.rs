//! The stock program: an app whose entities are JSON Schema files.

fn main() -> std::process::ExitCode {
    tidelog::App::new("tidelog").run()
}
