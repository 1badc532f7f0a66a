//! `#[events("…")]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{DeriveInput, Fields, Ident, LitInt, LitStr, Path, Token, Variant, parse_quote};

use crate::args;
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
    args::version(&attribute.parse_args::<LitInt>()?)
}

/// What stands in the parentheses: `"account"`, and maybe `upcasters = a_function`.
struct Args {
    /// The aggregate that the events are of.
    category: Name,
    upcasters: Option<Path>,
}

impl Args {
    fn read(args: TokenStream, item: &DeriveInput) -> syn::Result<Self> {
        if args.is_empty() {
            let message = "say which aggregate's events these are: #[events(\"account\")]";
            return Err(syn::Error::new_spanned(&item.ident, message));
        }
        Self::parse.parse2(args)
    }
}

impl Parse for Args {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let category = Name::given(&input.parse::<LitStr>()?)?;
        let mut upcasters = None;
        if input.parse::<Option<Token![,]>>()?.is_some() && !input.is_empty() {
            let argument: Ident = input.parse()?;
            if argument != "upcasters" {
                let message = "there is no such argument; there is: upcasters";
                return Err(syn::Error::new_spanned(argument, message));
            }
            input.parse::<Token![=]>()?;
            upcasters = Some(input.parse()?);
        }
        Ok(Self {
            category,
            upcasters,
        })
    }
}

pub(crate) fn expand(args: TokenStream, mut item: DeriveInput) -> syn::Result<TokenStream> {
    let Args {
        category,
        upcasters,
    } = Args::read(args, &item)?;
    let upcasters = args::upcasters(upcasters.as_ref());
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
            fn current_version(event_type: &str) -> u32 {
                match event_type {
                    #(#stored => #versions,)*
                    _ => 1,
                }
            }
            #upcasters
            fn schema(
                event_type: &str,
            ) -> ::core::option::Option<::tidelog::__private::serde_json::Value> {
                ::tidelog::__private::event_schema::<Self>(event_type)
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
