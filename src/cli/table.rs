//! Columns that line up, and figures for people.

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Utc};

/// Rows under a head, each column as wide as it has to be, two blanks between. Numbers stand at the right. The head and the words in a column
/// called `STATE` are coloured; whoever prints it leaves that out where nobody sees it.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        let own = head.get(column).map_or(0, |cell| cell.chars().count());
        cells.max().unwrap_or(0).max(own)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let is_number = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column)).peekable();
        let number = |cell: &String| cell.parse::<f64>().is_ok() || cell == NOTHING;
        cells.peek().is_some() && cells.all(number)
    };
    let right: [bool; N] = std::array::from_fn(is_number);
    let line = |cells: [&str; N], style: &dyn Fn(&str, &str) -> Style| {
        let mut line = String::new();
        let mut blanks = 0;
        let cells = cells.iter().zip(head).zip(widths).zip(right);
        for (((cell, head), width), right) in cells {
            let free = width.saturating_sub(cell.chars().count());
            let before = if right { blanks + free } else { blanks };
            line.push_str(&" ".repeat(before));
            line.push_str(&coloured(cell, style(head, cell)));
            blanks = if right { 2 } else { free + 2 };
        }
        format!("{}\n", line.trim_end())
    };
    let of_cell = |head: &str, cell: &str| match head {
        STATE => tone(cell),
        _ => Style::new(),
    };
    let mut text = line(head, &|_, _| Style::new().bold());
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str), &of_cell));
    }
    text
}

/// The head of a column whose words are coloured.
pub(super) const STATE: &str = "STATE";

/// A text in a style.
pub(super) fn coloured(text: &str, style: Style) -> String {
    if style.is_plain() {
        return text.to_owned();
    }
    format!("{style}{text}{style:#}")
}

/// How good what a word says is.
pub(super) fn tone(word: &str) -> Style {
    match word {
        "ok" | "live" | "read" => AnsiColor::Green.on_default(),
        "FAIL" | "STALLED" | "failed" | "full" | "history-changed" => {
            AnsiColor::Red.on_default().bold()
        }
        "warn" | "parked" | "paused" | "retrying" | "backing-off" | "unowned" | "pending" => {
            AnsiColor::Yellow.on_default()
        }
        _ => Style::new(),
    }
}

/// What stands for no value.
pub(super) const NOTHING: &str = "-";

/// A time span, in the unit that says it best.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1_000.0),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 2.0 * 3_600.0 => format!("{:.0} min", s / 60.0),
        s if s < 2.0 * 86_400.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// How long ago something was.
pub(super) fn ago(at: DateTime<Utc>) -> String {
    let since = (Utc::now() - at).to_std().unwrap_or_default();
    format!("{} ago", span(since.as_secs_f64()))
}

/// One line, at most so many characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max {
        return line;
    }
    let kept: String = line.chars().take(max.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// One line, at most so many characters: the end of the text, where an error has its first cause.
pub(super) fn end_of(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let count = line.chars().count();
    if count <= max {
        return line;
    }
    let kept: String = line.chars().skip(count - max + 1).collect();
    format!("…{kept}")
}

/// Lines of at most so many characters, where the words allow it; all but the first begin with `indent`.
pub(super) fn wrapped(text: &str, max: usize, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let own = word.chars().count();
        if width > 0 && width + 1 + own > max {
            wrapped.push('\n');
            wrapped.push_str(indent);
            width = 0;
        } else if width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        wrapped.push_str(word);
        width += own;
    }
    wrapped
}

/// `1 event`, `2 events`.
pub(super) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// `1 view is`, `2 views are`.
pub(super) fn are(count: u64, what: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_at_the_right() {
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned(), "x".to_owned()];
        let rows = [row("post", "7"), row("größe", "1200"), row("none", "-")];
        let text = table(["NAME", "PARKED", "Y"], &rows);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "NAME   PARKED  Y\npost        7  x\ngröße    1200  x\nnone        -  x\n"
        );
    }

    #[test]
    fn states_are_coloured_and_names_are_not() {
        let rows = [["live".to_owned(), "live".to_owned()]];
        let text = table(["NAME", "STATE"], &rows);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row, "live  \u{1b}[32mlive\u{1b}[0m");
    }

    #[test]
    fn a_span_is_in_the_unit_that_says_it_best() {
        let spans = [0.004, 0.9, 61.0, 600.0, 7_300.0, 200_000.0].map(span);
        assert_eq!(spans, ["4 ms", "900 ms", "61 s", "10 min", "2 h", "2 d"]);
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [0, 1, 2].map(|n| counted(n, "event")),
            ["0 events", "1 event", "2 events"]
        );
        assert_eq!(
            [0, 1, 2].map(|n| are(n, "view")),
            ["0 views are", "1 view is", "2 views are"]
        );
    }

    #[test]
    fn a_long_text_is_one_short_line() {
        assert_eq!(short("one\n two", 7), "one two");
        assert_eq!(short("one two three", 8), "one two…");
        assert_eq!(end_of("one two three", 8), "…o three");
        assert_eq!(wrapped("one two three", 8, "  "), "one two\n  three");
    }
}
