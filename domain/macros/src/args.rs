//! What stands in the parentheses of an attribute.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Ident, LitInt, LitStr, Path, Token, Type, parenthesized};

/// The arguments of the macros for structs.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) name: Option<LitStr>,
    pub(crate) plural: Option<LitStr>,
    /// Each `index = "…"`, of which there may be several.
    pub(crate) indexes: Vec<LitStr>,
    /// What stands in `roles(…)`.
    pub(crate) roles: Option<Roles>,
    pub(crate) rule: Option<Path>,
    pub(crate) rejection: Option<Type>,
    pub(crate) version: Option<LitInt>,
    pub(crate) upcasters: Option<Path>,
}

impl Args {
    /// Reads those of the arguments that are `known`.
    pub(crate) fn parse(args: TokenStream, known: &[&str]) -> syn::Result<Self> {
        let mut read = Self::default();
        let parser = syn::meta::parser(|meta| {
            let is = |name: &str| known.contains(&name) && meta.path.is_ident(name);
            if is("name") {
                read.name = Some(meta.value()?.parse()?);
            } else if is("plural") {
                read.plural = Some(meta.value()?.parse()?);
            } else if is("index") {
                read.indexes.push(meta.value()?.parse()?);
            } else if is("roles") {
                let inner;
                parenthesized!(inner in meta.input);
                read.roles = Some(inner.parse()?);
            } else if is("rule") {
                read.rule = Some(meta.value()?.parse()?);
            } else if is("rejection") {
                read.rejection = Some(meta.value()?.parse()?);
            } else if is("version") {
                read.version = Some(meta.value()?.parse()?);
            } else if is("upcasters") {
                read.upcasters = Some(meta.value()?.parse()?);
            } else {
                let known = known.join(", ");
                return Err(meta.error(format!("there is no such argument; there are: {known}")));
            }
            Ok(())
        });
        parser.parse2(args)?;
        Ok(read)
    }
}

/// What a role may not have: rules are written with it.
const NO_ROLE: &str = "a role has 1 to 128 characters, and no blank, comma, `|` or `=`";

/// The roles of which a caller needs one: for everything, or for some operations.
#[derive(Default)]
pub(crate) struct Roles {
    pub(crate) all: Vec<LitStr>,
    pub(crate) of: Vec<(Ident, Vec<LitStr>)>,
}

impl Parse for Roles {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut roles = Self::default();
        while !input.is_empty() {
            if input.peek(LitStr) {
                roles.all.push(role(input)?);
            } else {
                let operation: Ident = input.parse()?;
                let inner;
                parenthesized!(inner in input);
                let list = Punctuated::<LitStr, Token![,]>::parse_terminated_with(&inner, role)?;
                if list.is_empty() {
                    return Err(inner.error("name a role: without one, everybody may"));
                }
                roles.of.push((operation, list.into_iter().collect()));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if roles.all.is_empty() && roles.of.is_empty() {
            return Err(input.error("name a role: without one, everybody may"));
        }
        Ok(roles)
    }
}

impl Roles {
    /// The function that gives those for everything.
    pub(crate) fn function(roles: Option<&Self>) -> TokenStream {
        let all = roles.map(|roles| roles.all.as_slice()).unwrap_or_default();
        if all.is_empty() {
            return quote! {};
        }
        quote! {
            fn roles() -> &'static [&'static str] {
                &[#(#all),*]
            }
        }
    }

    /// Requires that they are not for some operations alone.
    pub(crate) fn require_for_all(roles: Option<&Self>) -> syn::Result<()> {
        match roles.and_then(|roles| roles.of.first()) {
            Some((operation, _)) => Err(syn::Error::new_spanned(
                operation,
                "roles are texts here: roles(\"teller\", \"manager\")",
            )),
            None => Ok(()),
        }
    }
}

fn role(input: ParseStream<'_>) -> syn::Result<LitStr> {
    let role: LitStr = input.parse()?;
    let text = role.value();
    let wrong = |c: char| c.is_control() || c.is_whitespace() || "|,=".contains(c);
    if (1..=128).contains(&text.chars().count()) && !text.contains(wrong) {
        return Ok(role);
    }
    Err(syn::Error::new_spanned(role, NO_ROLE))
}

/// Reads the version of a shape.
pub(crate) fn version(given: &LitInt) -> syn::Result<u32> {
    match given.base10_parse()? {
        0 => Err(syn::Error::new_spanned(given, "versions begin with 1")),
        version => Ok(version),
    }
}

/// The function that gives the upcasters, where there are any.
pub(crate) fn upcasters(path: Option<&Path>) -> TokenStream {
    let Some(path) = path else {
        return quote! {};
    };
    quote! {
        fn upcasters() -> ::std::vec::Vec<::tidelog::__private::Upcaster> {
            #path()
        }
    }
}

/// Requires that there are no arguments.
pub(crate) fn require_none(args: &TokenStream, macro_name: &str) -> syn::Result<()> {
    if args.is_empty() {
        return Ok(());
    }
    let message = format!("#[{macro_name}] takes no arguments");
    Err(syn::Error::new_spanned(args, message))
}
