//! `#[events("…")]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Fields, Ident, LitInt, LitStr, Variant, parse_quote};

use crate::name::{Name, require_unique};
use crate::plain::derives;
use crate::variants::{take, take_flag, take_name, variants};

/// One event.
struct Event {
    ident: Ident,
    name: Name,
    /// Its stored name.
    stored: String,
    terminal: bool,
    /// The version of its shape.
    version: u32,
    /// Whether its variant has braces, if empty ones.
    fields: bool,
}

impl Event {
    /// Takes what is ours out of `variant`.
    fn take(variant: &mut Variant, category: &Name) -> syn::Result<Self> {
        let terminal = take_flag(variant, "terminal")?;
        let version = take_version(variant)?;
        let name = take_name(variant)?;
        let stored = format!("{}.{}", category.text, name.text);
        variant.attrs.push(parse_quote!(#[serde(rename = #stored)]));
        Ok(Self {
            ident: variant.ident.clone(),
            name,
            stored,
            terminal,
            version,
            fields: !matches!(variant.fields, Fields::Unit),
        })
    }
}

/// Takes `#[version(2)]`.
fn take_version(variant: &mut Variant) -> syn::Result<u32> {
    let Some(attribute) = take(variant, "version") else {
        return Ok(1);
    };
    let version: LitInt = attribute.parse_args()?;
    match version.base10_parse()? {
        0 => Err(syn::Error::new_spanned(version, "versions begin with 1")),
        version => Ok(version),
    }
}

/// The aggregate that the events are of.
fn category(args: TokenStream, item: &DeriveInput) -> syn::Result<Name> {
    if args.is_empty() {
        let message = "say which aggregate's events these are: #[events(\"account\")]";
        return Err(syn::Error::new_spanned(&item.ident, message));
    }
    Name::given(&syn::parse2::<LitStr>(args)?)
}

pub(crate) fn expand(args: TokenStream, mut item: DeriveInput) -> syn::Result<TokenStream> {
    let category = category(args, &item)?;
    let events = variants(&mut item, "events")?
        .iter_mut()
        .map(|variant| Event::take(variant, &category))
        .collect::<syn::Result<Vec<_>>>()?;
    require_unique(events.iter().map(|event| &event.name), "events")?;
    let derives = derives();
    let ident = &item.ident;
    let stored: Vec<_> = events.iter().map(|event| &event.stored).collect();
    let variants: Vec<_> = events.iter().map(|event| &event.ident).collect();
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    let terminal: Vec<_> = events.iter().map(|event| event.terminal).collect();
    let read = events.iter().map(|event| {
        let variant = &event.ident;
        if event.fields {
            quote! { ::tidelog::__private::decode_event(event_type, schema_version, payload) }
        } else {
            quote! { ::core::result::Result::Ok(Self::#variant) }
        }
    });
    Ok(quote! {
        #derives
        #item
        impl ::tidelog::__private::Event for #ident {
            const TYPES: &'static [&'static str] = &[#(#stored),*];
            fn event_type(&self) -> &'static str {
                match self {
                    #(Self::#variants { .. } => #stored,)*
                }
            }
            fn schema_version(&self) -> u32 {
                match self {
                    #(Self::#variants { .. } => #versions,)*
                }
            }
            fn is_terminal(event_type: &str) -> bool {
                match event_type {
                    #(#stored => #terminal,)*
                    _ => false,
                }
            }
            fn encode(
                &self,
            ) -> ::core::result::Result<
                ::tidelog::__private::Payload,
                ::tidelog::__private::serde_json::Error,
            > {
                ::tidelog::__private::encode_event(self)
            }
            fn decode(
                event_type: &str,
                schema_version: u32,
                payload: &::tidelog::__private::Payload,
            ) -> ::core::result::Result<Self, ::tidelog::__private::DecodeError> {
                match (event_type, schema_version) {
                    #((#stored, #versions) => #read,)*
                    _ => ::core::result::Result::Err(
                        ::tidelog::__private::unknown_event::<Self>(event_type, schema_version),
                    ),
                }
            }
        }
    })
}
