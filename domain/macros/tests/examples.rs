//! The examples stay short: lines are counted as the default rustfmt writes them, blank ones and comments aside.

/// Requires at most `model` lines up to `main`, and at most `all` together.
fn at_most(example: &str, model: usize, all: usize) {
    let counts = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//")
    };
    let lines: Vec<&str> = example.lines().filter(counts).collect();
    let before_main = lines.iter().take_while(|line| !line.starts_with("fn main"));
    let before_main = before_main.count();
    assert!(before_main < lines.len(), "there is no main");
    assert!(
        before_main <= model,
        "{before_main} lines of model and view"
    );
    assert!(lines.len() <= all, "{} lines in all", lines.len());
}

#[test]
fn a_bank_account_and_its_view_are_short() {
    at_most(include_str!("../../../examples/bank/main.rs"), 90, 110);
}

#[test]
fn an_entity_with_a_rule_and_a_view_is_short() {
    at_most(include_str!("../../../examples/blog.rs"), 40, 60);
}

#[test]
fn what_the_readme_shows_is_the_example() {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme
        .split_once("## Define an aggregate")
        .unwrap_or_default();
    let (_, code) = section.split_once("```rust\n").unwrap_or_default();
    let (code, _) = code.split_once("```").unwrap_or_default();
    assert!(code.contains("#[aggregate]"), "there is no example");
    assert!(include_str!("../../../examples/bank/main.rs").contains(code));
}
