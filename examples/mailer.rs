//! A club that welcomes its members by mail: a reaction.

use std::path::PathBuf;

use tidelog::prelude::*;

/// A member of the club.
#[entity]
struct Member {
    #[schemars(length(min = 1, max = 100))]
    name: String,
    #[schemars(length(min = 3, max = 200))]
    mail: String,
}

/// Puts a mail for each new member into a directory, from where the mail server takes it.
struct Mailer {
    outbox: PathBuf,
}

impl Reaction for Mailer {
    const NAME: &'static str = "mailer";
    type Event = EntityEvent<Member>;

    async fn react(&self, e: &Recorded<Self::Event>) -> Result<(), Failure> {
        if let EntityEvent::Created(Member { name, mail }) = &e.event {
            let mail = json!({"to": mail, "text": format!("Welcome, {name}!")});
            // After a crash an event may come again. Its id stays the same, so it is the same mail.
            let file = self.outbox.join(format!("{}.json", e.id));
            std::fs::write(file, mail.to_string())?;
        }
        Ok(())
    }
}

fn club(outbox: PathBuf) -> App {
    App::new("club")
        .entity::<Member>()
        .reaction(Mailer { outbox })
}

fn main() -> std::process::ExitCode {
    club(std::env::temp_dir()).run()
}

#[cfg(test)]
mod tests {
    use tidelog::testing::TestApp;

    use super::*;

    #[tokio::test]
    async fn a_member_is_welcomed_once() -> Result<(), Box<dyn std::error::Error>> {
        let outbox = tempfile::tempdir()?;
        let app = TestApp::start(club(outbox.path().to_owned())).await?;
        let ann = json!({"id": "ann", "name": "Ann", "mail": "ann@example.org"});
        app.given("POST /member", &ann).await;
        app.given("PATCH /member/ann", &json!({"name": "Anna"}))
            .await;
        app.reacted().await;
        let mails = std::fs::read_dir(outbox.path())?
            .map(|file| std::fs::read_to_string(file?.path()))
            .collect::<Result<Vec<_>, _>>()?;
        let welcome = json!({"to": "ann@example.org", "text": "Welcome, Ann!"});
        assert_eq!(mails, [welcome.to_string()]);
        app.stop().await;
        Ok(())
    }
}
