//! Who may do what, as the macros take it.
#![allow(clippy::expect_used, reason = "tests fail loudly")]

extern crate tidelog_domain as tidelog;

use tidelog::prelude::*;
use tidelog::{Decider, EntitySchema, Named, TypedDecider};

#[aggregate(roles("teller"))]
struct Account {
    cents: u64,
}

#[commands]
enum AccountCommand {
    #[create]
    Open,
    #[roles("manager", "owner")]
    CloseDown,
}

#[events("account")]
enum AccountEvent {
    Opened,
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = std::convert::Infallible;

    fn decide(&self, _: AccountCommand, _: &Context) -> Decision<Self> {
        Ok(vec![AccountEvent::Opened])
    }

    fn evolve(&mut self, _: &AccountEvent) {}
}

#[view(roles("auditor"))]
struct Statement {
    cents: u64,
}

#[entity(roles("author"))]
struct Post {
    title: String,
}

#[entity(roles("clerk", read("reader"), delete("owner", "admin")))]
struct Note {
    text: String,
}

#[test]
fn a_command_needs_its_own_roles_or_else_those_of_its_aggregate() {
    let decider = TypedDecider::<Account>::new().expect("it can be run");
    assert_eq!(decider.roles("open"), ["teller"]);
    assert_eq!(decider.roles("close-down"), ["manager", "owner"]);
    assert_eq!(Statement::roles(), ["auditor"]);
}

#[test]
fn an_entity_has_roles_for_all_of_it_or_for_each_operation() {
    let roles = |schema: &EntitySchema| {
        let of = |operation: &str| schema.roles(operation).join("|");
        ["create", "patch", "delete", "read"].map(of)
    };
    let post = EntitySchema::of::<Post>().expect("an entity");
    assert_eq!(roles(&post), ["author"; 4]);
    let note = EntitySchema::of::<Note>().expect("an entity");
    assert_eq!(roles(&note), ["clerk", "clerk", "owner|admin", "reader"]);
}
