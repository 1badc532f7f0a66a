//! Enums of which each variant is a command, an event or a rejection.

use syn::punctuated::Punctuated;
use syn::{Attribute, Data, DataEnum, DeriveInput, Fields, LitStr, Token, Variant};

use crate::name::Name;

/// The variants of `item`, which must be an enum without parameters whose variants have named fields or none.
///
/// # Errors
///
/// What of it cannot be.
pub(crate) fn variants<'i>(
    item: &'i mut DeriveInput,
    macro_name: &str,
) -> syn::Result<&'i mut Punctuated<Variant, Token![,]>> {
    require_no_parameters(item)?;
    let ident = &item.ident;
    let Data::Enum(DataEnum { variants, .. }) = &mut item.data else {
        let message = format!("#[{macro_name}] goes on an enum, a variant each");
        return Err(syn::Error::new_spanned(ident, message));
    };
    if variants.is_empty() {
        let message = format!("{ident} has no variants yet: #[{macro_name}] needs one");
        return Err(syn::Error::new_spanned(ident, message));
    }
    for variant in variants.iter() {
        require_named_fields(variant)?;
    }
    Ok(variants)
}

/// Requires that `item` is not generic: what it is called and how it is stored may not depend on a type.
pub(crate) fn require_no_parameters(item: &DeriveInput) -> syn::Result<()> {
    if item.generics.params.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} cannot have parameters: it has one name, and is stored in one way",
        item.ident
    );
    Err(syn::Error::new_spanned(&item.generics, message))
}

fn require_named_fields(variant: &Variant) -> syn::Result<()> {
    let Fields::Unnamed(fields) = &variant.fields else {
        return Ok(());
    };
    let message = format!(
        "name the fields: `{} {{ … }}`. They are the fields of a JSON object",
        variant.ident
    );
    Err(syn::Error::new_spanned(fields, message))
}

/// Takes the attribute `name` out of `variant`, if it is there.
pub(crate) fn take(variant: &mut Variant, name: &str) -> Option<Attribute> {
    let at = variant
        .attrs
        .iter()
        .position(|attribute| attribute.path().is_ident(name))?;
    Some(variant.attrs.remove(at))
}

/// Takes the attribute `name`, which has no arguments, and says whether it was there.
pub(crate) fn take_flag(variant: &mut Variant, name: &str) -> syn::Result<bool> {
    match take(variant, name) {
        None => Ok(false),
        Some(flag) => flag.meta.require_path_only().map(|_| true),
    }
}

/// Takes `#[name("…")]`, and gives what the variant is called.
pub(crate) fn take_name(variant: &mut Variant) -> syn::Result<Name> {
    let given = take(variant, "name")
        .map(|attribute| attribute.parse_args::<LitStr>())
        .transpose()?;
    Name::new(given.as_ref(), &variant.ident)
}
