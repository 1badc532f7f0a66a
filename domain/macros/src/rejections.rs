//! `#[rejections]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DeriveInput, Expr, ExprLit, Ident, Lit, Meta, Variant};

use crate::args::require_none;
use crate::name::{Name, require_unique, sentence};
use crate::variants::{take_name, variants};

/// One rejection.
struct Rejection {
    ident: Ident,
    name: Name,
    /// The sentence for people, as `format!` takes it.
    template: String,
    /// The fields that are in it.
    shown: Vec<Ident>,
}

impl Rejection {
    /// Takes what is ours out of `variant`.
    fn take(variant: &mut Variant) -> syn::Result<Self> {
        let fields: Vec<_> = variant
            .fields
            .iter()
            .filter_map(|field| field.ident.clone())
            .collect();
        let documented = documentation(variant);
        let (template, shown) = match documented.is_empty() {
            true => (said(&variant.ident, &fields), fields),
            false => filled(&documented, &fields),
        };
        Ok(Self {
            name: take_name(variant)?,
            ident: variant.ident.clone(),
            template,
            shown,
        })
    }
}

/// The first paragraph of a variant's documentation, in one line.
fn documentation(variant: &Variant) -> String {
    let lines = variant.attrs.iter().filter_map(|attribute| {
        let Meta::NameValue(doc) = &attribute.meta else {
            return None;
        };
        match &doc.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) if doc.path.is_ident("doc") => Some(text.value().trim().to_owned()),
            _ => None,
        }
    });
    lines
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// `Insufficient funds (balance_cents: {:?}).`: what is said where nothing is documented.
fn said(variant: &Ident, fields: &[Ident]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|field| format!("{}: {{:?}}", field.unraw()))
        .collect();
    match fields.as_slice() {
        [] => format!("{}.", sentence(variant)),
        fields => format!("{} ({}).", sentence(variant), fields.join(", ")),
    }
}

/// The documented sentence, and the fields whose `{field}` it has, in their order.
fn filled(documented: &str, fields: &[Ident]) -> (String, Vec<Ident>) {
    let mut template = String::new();
    let mut shown = Vec::new();
    let mut rest = documented;
    while let Some((text, after)) = rest.split_once('{') {
        template.push_str(&text.replace('}', "}}"));
        let field = after.split_once('}').and_then(|(name, rest)| {
            let field = fields.iter().find(|field| field.unraw() == name)?;
            Some((field.clone(), rest))
        });
        match field {
            Some((field, after)) => {
                template.push_str("{}");
                shown.push(field);
                rest = after;
            }
            None => {
                template.push_str("{{");
                rest = after;
            }
        }
    }
    template.push_str(&rest.replace('}', "}}"));
    (template, shown)
}

pub(crate) fn expand(args: TokenStream, mut item: DeriveInput) -> syn::Result<TokenStream> {
    require_none(&args, "rejections")?;
    let rejections = variants(&mut item, "rejections")?
        .iter_mut()
        .map(Rejection::take)
        .collect::<syn::Result<Vec<_>>>()?;
    let names = rejections.iter().map(|rejection| &rejection.name);
    require_unique(names, "rejections")?;
    let ident = &item.ident;
    let codes = rejections.iter().map(|rejection| {
        let (variant, code) = (&rejection.ident, &rejection.name.text);
        quote! { Self::#variant { .. } => #code, }
    });
    let details = rejections.iter().map(|rejection| {
        let (variant, template, shown) = (&rejection.ident, &rejection.template, &rejection.shown);
        let mut bound: Vec<_> = shown.clone();
        bound.sort();
        bound.dedup();
        quote! { Self::#variant { #(#bound,)* .. } => ::std::format!(#template, #(#shown),*), }
    });
    Ok(quote! {
        #[derive(::core::clone::Clone, ::core::fmt::Debug, ::core::cmp::PartialEq)]
        #item
        impl ::tidelog::__private::Rejection for #ident {
            fn code(&self) -> ::std::string::String {
                ::std::string::String::from(match self {
                    #(#codes)*
                })
            }
            fn detail(&self) -> ::std::string::String {
                match self {
                    #(#details)*
                }
            }
        }
    })
}
