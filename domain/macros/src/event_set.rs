//! `#[event_set]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, Ident, Type, Variant};

use crate::args::require_none;
use crate::variants::require_no_parameters;

pub(crate) fn expand(args: TokenStream, item: DeriveInput) -> syn::Result<TokenStream> {
    require_none(&args, "event_set")?;
    require_no_parameters(&item)?;
    let parts = parts(&item)?;
    let ident = &item.ident;
    let variants = parts.iter().map(|(variant, _)| variant);
    let types: Vec<_> = parts.iter().map(|(_, events)| events).collect();
    let set = quote! { ::tidelog::__private::EventSet };
    Ok(quote! {
        #[derive(::core::clone::Clone, ::core::fmt::Debug, ::core::cmp::PartialEq)]
        #item
        impl #set for #ident {
            const NAMES: &'static [&'static str] = &::tidelog::__private::joined::<
                { 0 #(+ <#types as #set>::NAMES.len())* },
            >(&[#(<#types as #set>::NAMES),*]);
            fn evolution() -> ::tidelog::__private::Upcasters {
                ::tidelog::__private::Upcasters::default()
                    #(.and(<#types as #set>::evolution()))*
            }
            fn read(
                event: &::tidelog::__private::RecordedEvent,
            ) -> ::core::result::Result<Self, ::tidelog::__private::DecodeError> {
                let name = &*event.event_type;
                #(
                    if <#types as #set>::NAMES.contains(&name) {
                        return <#types as #set>::read(event).map(Self::#variants);
                    }
                )*
                ::core::result::Result::Err(::tidelog::__private::DecodeError::unknown(name))
            }
        }
    })
}

/// The variants, and the events that each has.
fn parts(item: &DeriveInput) -> syn::Result<Vec<(&Ident, &Type)>> {
    let Data::Enum(data) = &item.data else {
        let message = "#[event_set] goes on an enum, a variant for each aggregate";
        return Err(syn::Error::new_spanned(&item.ident, message));
    };
    if data.variants.is_empty() {
        let message = format!("{} has no variants yet: #[event_set] needs one", item.ident);
        return Err(syn::Error::new_spanned(&item.ident, message));
    }
    data.variants.iter().map(part).collect()
}

fn part(variant: &Variant) -> syn::Result<(&Ident, &Type)> {
    let fields = match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => fields.unnamed.first(),
        _ => None,
    };
    let events = fields.map(|field| (&variant.ident, &field.ty));
    events.ok_or_else(|| {
        let message = format!(
            "a variant has the events of one aggregate: `{}({0}Event)`",
            variant.ident
        );
        syn::Error::new_spanned(variant, message)
    })
}
