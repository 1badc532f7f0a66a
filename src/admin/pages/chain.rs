//! Why something happened, as a picture and as a list: commands, the events they caused, the commands that those caused.

use uuid::Uuid;

use crate::admin::log::{CausedEvent, Chain, CommandNode};

/// The size of a box and the room between two, in pixels.
const WIDTH: usize = 208;
const HEIGHT: usize = 62;
const BETWEEN_COLUMNS: usize = 44;
const BETWEEN_ROWS: usize = 16;

/// The room around all of it, for what marks a box.
const MARGIN: usize = 4;

/// How many characters fit into a line of a box.
const LINE: usize = 24;

/// The picture: each layer is a column.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) boxes: Vec<Node>,
    pub(super) paths: Vec<String>,
    /// The same as a list.
    pub(super) list: Vec<Step>,
    /// How many events there are.
    pub(super) events: usize,
    /// The row that is filled next.
    row: usize,
}

/// A box of it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) href: String,
    /// All of what it says.
    pub(super) title: String,
    /// What fits into it.
    pub(super) lines: [String; 3],
    pub(super) is_command: bool,
    /// Whether it is the event that the page is about.
    pub(super) is_here: bool,
}

/// A step through the list.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Begin,
    Item {
        href: String,
        text: String,
        is_here: bool,
    },
    ItemEnd,
    End,
}

impl Picture {
    /// The picture of `chain`, in which the event `here` is marked.
    pub(super) fn of(chain: &Chain, here: Uuid) -> Self {
        let mut picture = Self::default();
        let correlation = &chain.correlation_id;
        picture.list.push(Step::Begin);
        for command in &chain.commands {
            picture.command(command, 0, None, correlation, here);
        }
        picture.list.push(Step::End);
        let columns = picture.boxes.iter().map(|own| own.x + WIDTH).max();
        picture.width = columns.unwrap_or(0) + MARGIN;
        picture.height = place(0, picture.row).1 - BETWEEN_ROWS + MARGIN;
        picture
    }

    /// A command and all below it; `parent` is the event that caused it.
    fn command(
        &mut self,
        command: &CommandNode,
        column: usize,
        parent: Option<(usize, usize)>,
        correlation: &str,
        here: Uuid,
    ) {
        let id = command.id.map(|id| id.to_string());
        let href = match &id {
            Some(id) => format!("/admin/events?causation={id}"),
            None => format!(
                "/admin/events?correlation={}",
                super::text::segment(correlation)
            ),
        };
        let id = id.unwrap_or_else(|| "of no known id".to_owned());
        let title = format!("command {id}");
        let lines = ["command".to_owned(), cut(&id), String::new()];
        let at = self.add(column, parent, (title, href), lines, (true, false));
        let below = command.events.iter();
        self.below(below, |picture, event| {
            picture.event(event, column + 1, at, correlation, here);
        });
    }

    fn event(
        &mut self,
        event: &CausedEvent,
        column: usize,
        parent: (usize, usize),
        correlation: &str,
        here: Uuid,
    ) {
        self.events += 1;
        let stream = format!("{}@{}", event.stream, event.version);
        let time = event.recorded_at.format("%Y-%m-%d %H:%M:%S%.3f UTC");
        let title = format!("{} {stream}, {time}", event.event_type);
        let clock = event.recorded_at.format("%H:%M:%S%.3f").to_string();
        let lines = [cut(&event.event_type), cut(&stream), clock];
        let href = format!("/admin/events/{}:{}", event.partition, event.position);
        let marks = (false, event.id == here);
        let at = self.add(column, Some(parent), (title, href), lines, marks);
        self.below(event.commands.iter(), |picture, command| {
            picture.command(command, column + 1, Some(at), correlation, here);
        });
    }

    /// Adds a box in `column` of the next row, and gives where it is.
    fn add(
        &mut self,
        column: usize,
        parent: Option<(usize, usize)>,
        (title, href): (String, String),
        lines: [String; 3],
        (is_command, is_here): (bool, bool),
    ) -> (usize, usize) {
        let (x, y) = place(column, self.row);
        let middle = y + HEIGHT / 2;
        if let Some((from_x, from_y)) = parent {
            let (from, turn) = (from_x + WIDTH, x - BETWEEN_COLUMNS / 2);
            let start = from_y + HEIGHT / 2;
            self.paths
                .push(format!("M{from} {start}H{turn}V{middle}H{x}"));
        }
        let (text, to) = (title.clone(), href.clone());
        self.list.push(Step::Item {
            href: to,
            text,
            is_here,
        });
        self.boxes.push(Node {
            x,
            y,
            href,
            title,
            lines,
            is_command,
            is_here,
        });
        (x, y)
    }

    /// Adds what is below the last box, which begins in its row; where there is nothing, the row is full.
    fn below<T>(&mut self, nodes: impl ExactSizeIterator<Item = T>, add: impl Fn(&mut Self, T)) {
        if nodes.len() == 0 {
            self.row += 1;
        } else {
            self.list.push(Step::Begin);
            nodes.for_each(|node| add(self, node));
            self.list.push(Step::End);
        }
        self.list.push(Step::ItemEnd);
    }
}

/// Where a box is.
const fn place(column: usize, row: usize) -> (usize, usize) {
    (
        MARGIN + column * (WIDTH + BETWEEN_COLUMNS),
        MARGIN + row * (HEIGHT + BETWEEN_ROWS),
    )
}

/// A text that fits into a box: its beginning and its end, which has the version.
fn cut(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= LINE {
        return text.to_owned();
    }
    let (begin, end) = (LINE - 9, chars.len() - 8);
    let begin = chars.iter().take(begin);
    begin.chain(&['…']).chain(chars.iter().skip(end)).collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn event(id: u128, commands: Vec<CommandNode>) -> CausedEvent {
        CausedEvent {
            id: Uuid::from_u128(id),
            event_type: "post.created".to_owned(),
            stream: format!("post/{id}"),
            version: 1,
            partition: 3,
            position: 7,
            recorded_at: DateTime::UNIX_EPOCH,
            commands,
        }
    }

    fn command(id: u128, events: Vec<CausedEvent>) -> CommandNode {
        let id = Some(Uuid::from_u128(id));
        CommandNode { id, events }
    }

    fn picture(commands: Vec<CommandNode>) -> Picture {
        let correlation_id = "c d".to_owned();
        let chain = Chain {
            correlation_id,
            commands,
            more: false,
        };
        Picture::of(&chain, Uuid::from_u128(2))
    }

    #[test]
    fn each_layer_is_a_column_and_what_is_caused_begins_in_the_row_of_its_cause() {
        let caused = command(2, vec![event(4, vec![]), event(5, vec![])]);
        let first = command(90, vec![event(1, vec![]), event(2, vec![caused])]);
        let picture = picture(vec![first, command(91, vec![event(3, vec![])])]);
        let columns = [0, 1, 1, 2, 3, 3, 0, 1];
        let rows = [0, 0, 1, 1, 1, 2, 3, 3];
        let expected: Vec<_> = columns
            .iter()
            .zip(rows)
            .map(|(c, r)| place(*c, r))
            .collect();
        let found: Vec<_> = picture.boxes.iter().map(|own| (own.x, own.y)).collect();
        assert_eq!(found, expected);
        assert_eq!(picture.events, 5);
        // One path leads to each box but the two commands of the request itself.
        assert_eq!(picture.paths.len(), 6);
        let second = picture.paths.get(1).unwrap();
        assert_eq!(second, "M212 35H234V113H256");
        let (right, below) = place(3, 3);
        assert_eq!(
            (picture.width, picture.height),
            (right + WIDTH + MARGIN, below + HEIGHT + MARGIN)
        );
        let here: Vec<_> = picture.boxes.iter().filter(|own| own.is_here).collect();
        assert_eq!(here.len(), 1);
        assert!(
            here[0].title.starts_with("post.created post/2@1"),
            "{}",
            here[0].title
        );
    }

    #[test]
    fn no_two_boxes_cover_each_other() {
        let deep = (0..40).fold(vec![], |below, id| {
            vec![command(
                id,
                vec![event(id, below), event(1_000 + id, vec![])],
            )]
        });
        let picture = picture(deep);
        let mut places: Vec<_> = picture.boxes.iter().map(|own| (own.x, own.y)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 40 + 80);
    }

    #[test]
    fn the_list_is_nested_as_the_picture() {
        let caused = command(1, vec![event(2, vec![])]);
        let picture = picture(vec![command(90, vec![event(1, vec![caused])])]);
        let mut text = String::new();
        for step in &picture.list {
            text.push_str(match step {
                Step::Begin => "(",
                Step::Item { is_here: true, .. } => "here",
                Step::Item { text, .. } if text.starts_with("command") => "c",
                Step::Item { .. } => "e",
                Step::ItemEnd => ".",
                Step::End => ")",
            });
        }
        assert_eq!(text, "(c(e(c(here.).).).)");
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let long = cut("post/0190c0de-0000-7000-8000-00000000abcd@12");
        assert_eq!(long, "post/0190c0de-0…0abcd@12");
        assert_eq!(long.chars().count(), LINE);
        assert_eq!(cut("post/1@3"), "post/1@3");
    }
}
