//! Mistakes that people make, and what the compiler says to them: each error stands at the line that is wrong.

#[test]
fn a_mistake_is_said_at_the_line_that_has_it() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
