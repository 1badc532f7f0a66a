//! `#[commands]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Fields, Ident, Variant, parse_quote};

use crate::args::{Roles, require_none};
use crate::name::{Name, require_unique};
use crate::plain::derives;
use crate::variants::{take, take_flag, take_name, variants};

/// One command.
struct Command {
    ident: Ident,
    name: Name,
    creates: bool,
    deletes: bool,
    roles: Option<Roles>,
    /// Whether its variant has braces, if empty ones.
    fields: bool,
}

impl Command {
    /// Takes what is ours out of `variant`.
    fn take(variant: &mut Variant) -> syn::Result<Self> {
        let command = Self {
            ident: variant.ident.clone(),
            creates: take_flag(variant, "create")?,
            deletes: take_flag(variant, "delete")?,
            roles: take(variant, "roles")
                .map(|attribute| attribute.parse_args())
                .transpose()?,
            name: take_name(variant)?,
            fields: !matches!(variant.fields, Fields::Unit),
        };
        Roles::require_for_all(command.roles.as_ref())?;
        let name = &command.name.text;
        variant.attrs.push(parse_quote!(#[serde(rename = #name)]));
        let wrong = |message: &str| Err(syn::Error::new_spanned(&variant.ident, message));
        if command.creates && command.deletes {
            return wrong("a command cannot both create and delete");
        }
        if command.deletes && !variant.fields.is_empty() {
            return wrong(
                "a deletion has no body, so its command has no fields: leave them out, or #[delete]",
            );
        }
        let id = variant
            .fields
            .iter()
            .filter_map(|field| field.ident.as_ref());
        if let Some(id) = id
            .into_iter()
            .find(|ident| *ident == "id" && command.creates)
        {
            let message = "`id` in the body of a creating command is the new aggregate's own id: call the field otherwise";
            return Err(syn::Error::new_spanned(id, message));
        }
        Ok(command)
    }

    /// Its place in the list of all.
    fn spec(&self) -> TokenStream {
        let name = &self.name.text;
        let endpoint = if self.deletes {
            quote! { ::tidelog::__private::Endpoint::Delete }
        } else {
            quote! { ::tidelog::__private::Endpoint::Named }
        };
        let lifecycle = if self.creates {
            quote! { ::tidelog::__private::Lifecycle::Missing }
        } else {
            quote! { ::tidelog::__private::Lifecycle::Live }
        };
        quote! { (#name, #endpoint, #lifecycle) }
    }
}

pub(crate) fn expand(args: TokenStream, mut item: DeriveInput) -> syn::Result<TokenStream> {
    require_none(&args, "commands")?;
    let commands = variants(&mut item, "commands")?
        .iter_mut()
        .map(Command::take)
        .collect::<syn::Result<Vec<_>>>()?;
    require_unique(commands.iter().map(|command| &command.name), "commands")?;
    if !commands.iter().any(|command| command.creates) {
        let message = "no command creates: put #[create] on the one that makes a new aggregate";
        return Err(syn::Error::new_spanned(&item.ident, message));
    }
    if let Some(second) = commands.iter().filter(|command| command.deletes).nth(1) {
        let message = "another command is #[delete] already: one DELETE can only be one command";
        return Err(syn::Error::new_spanned(&second.ident, message));
    }
    let ident = &item.ident;
    let derives = derives();
    let specs = commands.iter().map(Command::spec);
    let roles = roles(&commands);
    let without_fields = commands
        .iter()
        .filter(|command| !command.fields)
        .map(|command| {
            let (variant, name) = (&command.ident, &command.name.text);
            quote! { #name => ::core::result::Result::Ok(Self::#variant), }
        });
    Ok(quote! {
        #derives
        #item
        impl ::tidelog::__private::Command for #ident {
            fn specs() -> ::std::vec::Vec<::tidelog::__private::CommandSpec> {
                ::tidelog::__private::command_specs::<Self>(&[#(#specs),*])
            }
            #roles
            fn decode(
                input: &::tidelog::__private::CommandInput,
            ) -> ::core::result::Result<Self, ::std::vec::Vec<::tidelog::__private::FieldError>> {
                match input.name.as_str() {
                    #(#without_fields)*
                    _ => ::tidelog::__private::decode_command(input),
                }
            }
        }
    })
}

/// The function that gives the roles of those commands that name some.
fn roles(commands: &[Command]) -> TokenStream {
    let arms = commands.iter().filter_map(|command| {
        let (name, roles) = (&command.name.text, &command.roles.as_ref()?.all);
        Some(quote! { #name => &[#(#roles),*], })
    });
    let arms: TokenStream = arms.collect();
    if arms.is_empty() {
        return arms;
    }
    quote! {
        fn roles(command: &str) -> &'static [&'static str] {
            match command {
                #arms
                _ => &[],
            }
        }
    }
}
