//! What stands in the parentheses of an attribute.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{LitInt, LitStr, Path, Type};

/// The arguments of the macros for structs.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) name: Option<LitStr>,
    pub(crate) plural: Option<LitStr>,
    /// Each `index = "…"`, of which there may be several.
    pub(crate) indexes: Vec<LitStr>,
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
