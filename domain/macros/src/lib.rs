//! The attribute macros of tidelog. They are used by way of `tidelog::prelude`, and need no other dependency.
//!
//! Each adds derives and one or two short `impl`s to the item it stands on, and nothing else: what it adds can be
//! written by hand, as the documentation of the traits shows. A name is the item's own in kebab-case, unless it is given:
//! `BankAccount` is `bank-account`.

mod args;
mod commands;
mod event_set;
mod events;
mod name;
mod plain;
mod rejections;
mod variants;

use proc_macro::TokenStream;
use syn::DeriveInput;

/// Makes a struct the state of an aggregate: plain data with a default, and the aggregate's name.
///
/// `impl Aggregate` beside it says what is decided and how the state evolves. The struct has named fields and no
/// parameters; `id` and `version` are the framework's.
///
/// | argument | means | without it |
/// |---|---|---|
/// | `name = "account"` | the category of its streams, and the first part of its paths | the struct's name |
/// | `roles("teller", "manager")` | where callers sign in: the roles of which one is needed for each of its commands that does not name others itself | every caller that is signed in |
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
///
/// #[aggregate]
/// struct BankAccount {
///     balance_cents: u64,
/// }
///
/// assert_eq!(<BankAccount as tidelog::Named>::NAME, "bank-account");
/// ```
#[proc_macro_attribute]
pub fn aggregate(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(plain::aggregate, args, item)
}

/// Makes an enum the commands of an aggregate, each variant one, with its fields as the JSON body.
///
/// A command is called as its variant, and served as `POST /{aggregate}/{id}/{command}`. At least one creates:
///
/// | attribute of a variant | means |
/// |---|---|
/// | `#[create]` | it makes a new aggregate, and is served as `POST /{aggregate}/{command}` |
/// | `#[delete]` | it is served as `DELETE /{aggregate}/{id}`; it has no fields |
/// | `#[name("…")]` | its name, where the variant's will not do |
/// | `#[roles("teller", "manager")]` | where callers sign in: the roles of which one is needed, in place of the aggregate's |
///
/// What `#[schemars(…)]` says of a field (`range`, `length`, `pattern`) is checked before the command is decided, and
/// fields that are not known are refused.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
///
/// #[commands]
/// enum AccountCommand {
///     #[create]
///     Open { owner: String },
///     Deposit { #[schemars(range(min = 1))] cents: u64 },
///     #[delete]
///     Close,
/// }
///
/// let specs = <AccountCommand as tidelog::Command>::specs();
/// let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
/// assert_eq!(names, ["open", "deposit", "close"]);
/// ```
#[proc_macro_attribute]
pub fn commands(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(commands::expand, args, item)
}

/// Makes a struct a command over several aggregates, its fields the JSON body of `POST /{name}`.
///
/// `impl MultiStreamCommand` beside it says which aggregates it is about and what happens to each.
///
/// | argument | means | without it |
/// |---|---|---|
/// | `name = "transfer"` | its path | the struct's name |
/// | `roles("teller", "manager")` | where callers sign in: the roles of which one is needed for it | every caller that is signed in |
#[proc_macro_attribute]
pub fn multi_stream_command(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(plain::multi_stream_command, args, item)
}

/// Makes an enum the events of the aggregate that it names, each variant one, with its fields as the stored payload.
///
/// An event is stored as `{aggregate}.{variant}`: a contract with every log that has one. When a variant is
/// renamed, `#[name("…")]` keeps what is stored.
///
/// | attribute of a variant | means |
/// |---|---|
/// | `#[terminal]` | it ends the aggregate: every later command is answered with 410 |
/// | `#[name("…")]` | its name after the dot |
/// | `#[version(2)]` | the version of its payload's shape; without it 1 |
///
/// `#[events("account", upcasters = a_function)]` names the `fn() -> Vec<Upcaster>` that says how events of older shapes become
/// those of today.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
///
/// #[events("account")]
/// enum AccountEvent {
///     Opened { owner: String },
///     #[terminal]
///     Closed,
/// }
///
/// let types = <AccountEvent as tidelog::Event>::TYPES;
/// assert_eq!(types, ["account.opened", "account.closed"]);
/// ```
#[proc_macro_attribute]
pub fn events(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(events::expand, args, item)
}

/// Makes an enum the events of several aggregates, for a projection or a reaction that listens to all of them. Each variant has
/// the events of one.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
///
/// #[events("order")]
/// enum OrderEvent {
///     Placed { item: String },
/// }
/// #[events("payment")]
/// enum PaymentEvent {
///     Received { cents: u64 },
/// }
///
/// #[event_set]
/// enum Sale {
///     Order(OrderEvent),
///     Payment(PaymentEvent),
/// }
///
/// assert_eq!(Sale::NAMES, ["order.placed", "payment.received"]);
/// ```
#[proc_macro_attribute]
pub fn event_set(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(event_set::expand, args, item)
}

/// Makes an enum the reasons for which an aggregate or an entity's rule says no, each variant one.
///
/// The variant's name is the code for programs; its documentation is the sentence for people, in which `{field}` stands
/// for that field's value. `#[name("…")]` gives another code.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::Rejection;
/// use tidelog::prelude::*;
///
/// #[rejections]
/// enum AccountRejection {
///     /// There are only {balance_cents} cents in the account.
///     InsufficientFunds { balance_cents: u64 },
///     NotEmpty,
/// }
///
/// let rejection = AccountRejection::InsufficientFunds { balance_cents: 5 };
/// assert_eq!(rejection.code(), "insufficient-funds");
/// assert_eq!(rejection.detail(), "There are only 5 cents in the account.");
/// assert_eq!(AccountRejection::NotEmpty.detail(), "Not empty.");
/// ```
#[proc_macro_attribute]
pub fn rejections(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(rejections::expand, args, item)
}

/// Makes a struct the document of a read model: plain data with a default, its name, its plural and its JSON Schema, by
/// which clients can filter.
///
/// `impl Projection` beside it says how it is made of events. The struct has named fields and no parameters; `id`,
/// `version`, `created_at` and `updated_at` are the framework's.
///
/// | argument | means | without it |
/// |---|---|---|
/// | `name = "statement"` | one document: `GET /{name}/{id}` | the struct's name |
/// | `plural = "statements"` | their list: `GET /{plural}` | the name and an `s` |
/// | `index = "owner,-balance"` | by what lists are searched and sorted, in the words of `sort`; as often as needed | none |
/// | `roles("teller", "manager")` | where callers sign in: the roles of which one is needed for reading it | every caller that is signed in |
#[proc_macro_attribute]
pub fn view(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(plain::view, args, item)
}

/// Makes a struct an entity: created, patched, deleted and read without further code.
///
/// It is what a JSON Schema makes, with types: the schema comes from the fields and what `#[schemars(…)]` says of them. The
/// struct has named fields and no parameters; `id`, `version`, `created_at`, `updated_at` and `deleted` are the
/// framework's.
///
/// | argument | means | without it |
/// |---|---|---|
/// | `name = "post"` | the category of its streams, and its path | the struct's name |
/// | `plural = "posts"` | the path of its list | the name and an `s` |
/// | `index = "author_name,-created_at"` | by what lists are searched and sorted, in the words of `sort`; as often as needed | none |
/// | `roles("author")`, `roles(create("author"), read("reader"))` | where callers sign in: the roles of which one is needed for all of it, or to `create`, `patch`, `delete` or `read` it | every caller that is signed in |
/// | `rule = a_function` | `fn(Change<'_, Post>, &Context) -> Result<(), PostRejection>`, which may say no to a change | everything that fits the schema may happen |
/// | `rejection = PostRejection` | why the rule may say no | |
/// | `version = 2` | the version of its shape | 1 |
/// | `upcasters = a_function` | `fn() -> Vec<Upcaster>`, how events of older shapes become those of today | what was stored before is read as it is |
#[proc_macro_attribute]
pub fn entity(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(plain::entity, args, item)
}

/// Makes a struct or an enum plain data, to be used in the fields of the others: it can be compared, shown, cloned, stored
/// as JSON, and has a JSON Schema.
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    expand(plain::data, args, item)
}

/// What one of the macros makes of its arguments and its item.
type Expand = fn(proc_macro2::TokenStream, DeriveInput) -> syn::Result<proc_macro2::TokenStream>;

fn expand(by: Expand, args: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(item).and_then(|item| by(args.into(), item));
    expanded
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
