//! Server-sent events, read back from the body of an answer.

/// The most bytes of an event that is being read: a page of the largest documents has less.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// An event of a live query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// What the client goes on from, once it has this.
    pub(super) id: Option<String>,
    /// What kind it is; empty where it only moves on the id.
    pub(super) name: String,
    /// What it says.
    pub(super) data: String,
}

/// Reads events, however they are cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// What has no end of a line yet.
    rest: Vec<u8>,
    /// Up to where `rest` has no end of a line.
    searched: usize,
    event: Event,
    /// Bytes of the event's data so far.
    has_data: bool,
}

/// An event that is larger than any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Events {
    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        if self.rest.len() + self.event.data.len() + piece.len() > MAX_BYTES {
            return Err(TooLarge);
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// The next event that has come whole.
    pub(super) fn next(&mut self) -> Option<Event> {
        let mut begin = 0;
        let mut whole = None;
        while let Some(rest) = self.rest.get(begin..) {
            let skip = self.searched.saturating_sub(begin);
            let end = rest.iter().skip(skip).position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| end + skip) else {
                break;
            };
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line).into_owned();
            begin += end + 1;
            if let Some(event) = self.line(&line) {
                whole = Some(event);
                break;
            }
        }
        self.rest.drain(..begin);
        self.searched = if whole.is_some() { 0 } else { self.rest.len() };
        whole
    }

    /// Takes a line; the event that it ends.
    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            self.has_data = false;
            let says = event.id.is_some() || !event.name.is_empty() || !event.data.is_empty();
            return says.then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // Comments, and when to come back.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "retry: 1000\n\nid: a.1\nevent: page\ndata: {\"data\":[]}\n\n: quiet\n\nid: a.2\n\n\
                          event: changed\r\ndata: 1\r\ndata:2\r\n\r\nevent: cut\ndata: off";

    fn event(id: Option<&str>, name: &str, data: &str) -> Event {
        Event {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let expected = [
            event(Some("a.1"), "page", "{\"data\":[]}"),
            event(Some("a.2"), "", ""),
            event(None, "changed", "1\n2"),
        ];
        for size in [1, 2, 7, STREAM.len()] {
            let mut events = Events::default();
            let mut read = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                events.take(piece).unwrap();
                read.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(read, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; MAX_BYTES / 4];
        for _ in 0..4 {
            events.take(&piece).unwrap();
            assert_eq!(events.next(), None);
        }
        assert_eq!(events.take(b"x"), Err(TooLarge));
    }
}
