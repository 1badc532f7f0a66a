//! Structs that are plain data: states, documents, entities, and what is in their fields.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields};

use crate::args::{Args, Roles, require_none, upcasters, version};
use crate::name::Name;
use crate::variants::require_no_parameters;

/// What makes an item plain data.
pub(crate) fn derives() -> TokenStream {
    quote! {
        #[derive(
            ::core::clone::Clone,
            ::core::fmt::Debug,
            ::core::cmp::PartialEq,
            ::tidelog::__private::serde::Serialize,
            ::tidelog::__private::serde::Deserialize,
            ::tidelog::__private::schemars::JsonSchema
        )]
        #[serde(crate = "::tidelog::__private::serde")]
        #[schemars(crate = "::tidelog::__private::schemars")]
    }
}

/// `#[data]`.
pub(crate) fn data(args: TokenStream, item: DeriveInput) -> syn::Result<TokenStream> {
    require_none(&args, "data")?;
    let derives = derives();
    Ok(quote! { #derives #item })
}

/// `#[aggregate]`.
pub(crate) fn aggregate(args: TokenStream, item: DeriveInput) -> syn::Result<TokenStream> {
    let args = Args::parse(args, &["name", "roles"])?;
    Roles::require_for_all(args.roles.as_ref())?;
    require_record(&item, "aggregate", &["id", "version"])?;
    let roles = Roles::function(args.roles.as_ref());
    let name = Name::new(args.name.as_ref(), &item.ident)?.text;
    let (derives, ident) = (derives(), &item.ident);
    Ok(quote! {
        #derives
        #[derive(::core::default::Default)]
        #item
        impl ::tidelog::__private::Named for #ident {
            const NAME: &'static str = #name;
            #roles
            fn stored_schema() -> ::core::option::Option<::tidelog::__private::serde_json::Value> {
                ::core::option::Option::Some(::tidelog::__private::stored_schema::<Self>())
            }
        }
    })
}

/// `#[multi_stream_command]`.
pub(crate) fn multi_stream_command(
    args: TokenStream,
    item: DeriveInput,
) -> syn::Result<TokenStream> {
    let args = Args::parse(args, &["name", "roles"])?;
    Roles::require_for_all(args.roles.as_ref())?;
    require_record(&item, "multi_stream_command", &[])?;
    let (derives, named) = (derives(), named(&args, &item)?);
    Ok(quote! {
        #derives
        #[serde(deny_unknown_fields)]
        #item
        #named
    })
}

/// `#[view]`.
pub(crate) fn view(args: TokenStream, item: DeriveInput) -> syn::Result<TokenStream> {
    let args = Args::parse(args, &["name", "plural", "index", "roles"])?;
    Roles::require_for_all(args.roles.as_ref())?;
    require_record(
        &item,
        "view",
        &["id", "version", "created_at", "updated_at"],
    )?;
    let (derives, named, plural) = (derives(), named(&args, &item)?, plural(&args)?);
    let indexes = indexes(&args);
    let ident = &item.ident;
    Ok(quote! {
        #derives
        #[derive(::core::default::Default)]
        #item
        #named
        impl ::tidelog::__private::View for #ident {
            #plural
            #indexes
            fn schema() -> ::tidelog::__private::serde_json::Value {
                ::tidelog::__private::stored_schema::<Self>()
            }
        }
    })
}

/// `#[entity]`.
pub(crate) fn entity(args: TokenStream, item: DeriveInput) -> syn::Result<TokenStream> {
    let known = [
        "name",
        "plural",
        "index",
        "roles",
        "rule",
        "rejection",
        "version",
        "upcasters",
    ];
    let args = Args::parse(args, &known)?;
    let server_set = ["id", "version", "created_at", "updated_at", "deleted"];
    require_record(&item, "entity", &server_set)?;
    let name = Name::new(args.name.as_ref(), &item.ident)?.text;
    let events = ["created", "updated", "deleted"].map(|event| format!("{name}.{event}"));
    let (derives, named, plural) = (derives(), named(&args, &item)?, plural(&args)?);
    let (rejection, rule) = rule(&args)?;
    let indexes = indexes(&args);
    let roles_of = roles_of(&args)?;
    let version = args.version.as_ref().map(version).transpose()?.unwrap_or(1);
    let upcasters = upcasters(args.upcasters.as_ref());
    let ident = &item.ident;
    Ok(quote! {
        #derives
        #item
        #named
        impl ::tidelog::__private::Entity for #ident {
            type Rejection = #rejection;
            const EVENT_NAMES: &'static [&'static str] = &[#(#events),*];
            const VERSION: u32 = #version;
            #upcasters
            #plural
            #indexes
            #roles_of
            #rule
        }
    })
}

/// The rejection of an entity and the function that asks its rule.
fn rule(args: &Args) -> syn::Result<(TokenStream, TokenStream)> {
    match (&args.rule, &args.rejection) {
        (Some(rule), Some(rejection)) => Ok((
            quote! { #rejection },
            quote! {
                fn rule(
                    change: ::tidelog::__private::Change<'_, Self>,
                    ctx: &::tidelog::__private::Context,
                ) -> ::core::result::Result<(), Self::Rejection> {
                    #rule(change, ctx)
                }
            },
        )),
        (None, None) => Ok((quote! { ::core::convert::Infallible }, quote! {})),
        (Some(rule), None) => Err(syn::Error::new_spanned(
            rule,
            "say what the rule rejects with: `rejection = …`, an enum with #[rejections]",
        )),
        (None, Some(rejection)) => Err(syn::Error::new_spanned(
            rejection,
            "say which function rejects: `rule = …`, a fn(Change<'_, Self>, &Context) -> Result<(), …>",
        )),
    }
}

/// The `impl` of the item's name.
fn named(args: &Args, item: &DeriveInput) -> syn::Result<TokenStream> {
    let name = Name::new(args.name.as_ref(), &item.ident)?.text;
    let ident = &item.ident;
    let roles = Roles::function(args.roles.as_ref());
    Ok(quote! {
        impl ::tidelog::__private::Named for #ident {
            const NAME: &'static str = #name;
            #roles
        }
    })
}

/// The function that gives the plural, where it is not the name and an `s`.
fn plural(args: &Args) -> syn::Result<TokenStream> {
    let Some(plural) = &args.plural else {
        return Ok(quote! {});
    };
    let plural = Name::given(plural)?.text;
    Ok(quote! {
        fn plural() -> ::std::string::String {
            ::std::string::String::from(#plural)
        }
    })
}

/// The function that gives the indexes, where there are any.
fn indexes(args: &Args) -> TokenStream {
    let indexes = &args.indexes;
    if indexes.is_empty() {
        return quote! {};
    }
    quote! {
        fn indexes() -> ::std::vec::Vec<&'static str> {
            ::std::vec![#(#indexes),*]
        }
    }
}

/// The function that gives the roles for each operation on an entity, where they differ.
fn roles_of(args: &Args) -> syn::Result<TokenStream> {
    let of = args.roles.as_ref().map(|roles| roles.of.as_slice());
    let of = of.unwrap_or_default();
    if of.is_empty() {
        return Ok(quote! {});
    }
    let mut arms = TokenStream::new();
    for (operation, roles) in of {
        let name = operation.to_string();
        if !["create", "patch", "delete", "read"].contains(&&*name) {
            let message =
                "an entity is created, patched, deleted and read: create, patch, delete, read";
            return Err(syn::Error::new_spanned(operation, message));
        }
        arms.extend(quote! { #name => &[#(#roles),*], });
    }
    Ok(quote! {
        fn roles_of(operation: &str) -> &'static [&'static str] {
            match operation {
                #arms
                _ => <Self as ::tidelog::__private::Named>::roles(),
            }
        }
    })
}

/// Requires a struct with named fields, none of them `reserved`, and without parameters.
fn require_record(item: &DeriveInput, macro_name: &str, reserved: &[&str]) -> syn::Result<()> {
    let Data::Struct(data) = &item.data else {
        let message = format!("#[{macro_name}] goes on a struct with named fields");
        return Err(syn::Error::new_spanned(&item.ident, message));
    };
    require_no_parameters(item)?;
    if let Fields::Unnamed(fields) = &data.fields {
        let message = format!(
            "name the fields: `struct {} {{ … }}`. They are the fields of a JSON object",
            item.ident
        );
        return Err(syn::Error::new_spanned(fields, message));
    }
    let taken = data
        .fields
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .find(|ident| reserved.iter().any(|name| ident == name));
    taken.map_or(Ok(()), |ident| {
        let message = format!("`{ident}` is set by the framework: call the field otherwise");
        Err(syn::Error::new_spanned(ident, message))
    })
}
