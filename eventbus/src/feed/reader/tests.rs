use uuid::Uuid;

use super::*;
use crate::sample::{event, events};

fn cursor(partition: u16, position: u64) -> FeedCursor {
    FeedCursor {
        history: HistoryId::new(Uuid::from_u128(1)),
        partition: Partition::new(partition),
        at: Cursor {
            position: Position::new(position),
            event_id: None,
        },
    }
}

fn answer(events: &[RecordedEvent]) -> Vec<u8> {
    let encoded = events.iter().map(|event| wire::encode("blog", event));
    let encoded = encoded.map(|text| String::from_utf8(text.unwrap()).unwrap());
    let data: Vec<_> = encoded.collect();
    format!(r#"{{"data":[{}],"next":"1.x"}}"#, data.join(",")).into_bytes()
}

#[test]
fn a_page_is_read_to_the_byte() {
    let sent = events(3, 5..=9);
    assert_eq!(page(&answer(&sent), cursor(3, 4)).unwrap(), sent);
    assert!(page(&answer(&[]), cursor(3, 4)).unwrap().is_empty());
}

#[test]
fn a_page_with_a_hole_or_of_another_partition_is_refused() {
    for (events, after) in [
        (events(3, 6..=9), cursor(3, 4)),
        (events(3, 5..=9), cursor(2, 4)),
        (vec![event(3, 5), event(3, 7)], cursor(3, 4)),
        (vec![event(3, 5), event(3, 5)], cursor(3, 4)),
    ] {
        let refused = page(&answer(&events), after);
        assert!(
            matches!(refused, Err(LogError::Corrupt { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn what_is_not_the_feeds_answer_is_asked_for_again() {
    for body in ["", "<html>", r#"{"data": 1}"#] {
        let refused = page(body.as_bytes(), cursor(0, 0)).unwrap_err();
        assert_eq!(refused.retry(), crate::Retry::AfterBackoff, "{body}");
    }
    let problem = br#"{"type": "urn:x", "title": "Cannot do it now", "status": 503}"#;
    let said = causes(&refused(StatusCode::SERVICE_UNAVAILABLE, problem));
    assert!(
        said.contains("503") && said.contains("Cannot do it now"),
        "{said}"
    );
}

#[test]
fn the_heads_are_read_as_they_are_written() {
    let id = "00000000000000000000000000000001";
    let body = format!(
        r#"{{"data":{{"app":"blog","history":"{id}","heads":["0","18446744073709551615"]}}}}"#
    );
    let Answer { data } = read::<Answer<Heads>>(body.as_bytes()).unwrap();
    assert_eq!(data.history, cursor(0, 0).history);
    let heads: Vec<_> = data.heads.iter().map(|Decimal(head)| *head).collect();
    assert_eq!((data.app.as_str(), heads), ("blog", vec![0, u64::MAX]));
}

#[test]
fn the_token_is_what_the_file_has_now_and_is_never_shown() {
    let file = std::env::temp_dir().join(format!("tidelog-token-{}", Uuid::new_v4()));
    for token in ["first", "second\n"] {
        std::fs::write(&file, token).unwrap();
        let value = bearer(&file).unwrap();
        assert_eq!(value.to_str().unwrap(), format!("Bearer {}", token.trim()));
        assert!(value.is_sensitive());
    }
    for bad in ["", " \n", "hunter2\nhunter2", "hunter2\u{7f}"] {
        std::fs::write(&file, bad).unwrap();
        let error = causes(&bearer(&file).unwrap_err());
        assert!(
            error.contains("tidelog-token-") && !error.contains("hunter2"),
            "{error}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    assert!(bearer(&file).is_err());
}

#[test]
fn a_file_without_certificates_is_refused_by_its_name() {
    let file = std::env::temp_dir().join(format!("tidelog-ca-{}", Uuid::new_v4()));
    for text in [None, Some("no certificate")] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = certificates(&file).unwrap_err().to_string();
        assert!(error.contains("tidelog-ca-"), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
}
