//! The schemas of `examples/entities` are entities, and do what they show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use std::path::Path;

use tidelog_domain::EntitySchema;
use tidelog_domain::entity::SCHEMA_FILE_SUFFIX;

#[test]
fn every_file_of_the_examples_is_an_entity() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/entities");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let name = file
            .strip_suffix(SCHEMA_FILE_SUFFIX)
            .unwrap_or_else(|| panic!("{file} does not end with {SCHEMA_FILE_SUFFIX}"));
        let json = std::fs::read_to_string(&path).unwrap();
        let schema = EntitySchema::parse(name, &json).unwrap_or_else(|e| panic!("{file}: {e}"));
        names.push(schema.name().to_owned());
    }
    names.sort_unstable();
    assert_eq!(names, ["customer", "post"]);
}
