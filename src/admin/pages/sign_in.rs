//! Signing in with a token, and out.

use askama::Template;
use axum::extract::{OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidelog_http::Problem;

use super::layout::Shell;
use super::parameters::{Form, Parameters, fields};
use super::{Page, Shared, html, see_other};
use crate::admin::access::{NO_COOKIE, is_own};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    shell: Shell,
    has_sign_in: bool,
    is_wrong: bool,
    /// Where it leads afterwards.
    to: String,
}

/// Whoever asked for a page is to sign in first.
pub(super) fn redirect(parts: &Parts) -> Response {
    let asked = parts.extensions.get::<OriginalUri>();
    let asked = asked.map_or(&parts.uri, |OriginalUri(uri)| uri);
    let asked = asked
        .path_and_query()
        .map_or("/admin", |asked| asked.as_str());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("to", asked);
    see_other(&format!("/admin/sign-in?{}", query.finish()))
}

pub(super) async fn page(State(site): Shared, parameters: Parameters) -> Page {
    html(&SignIn {
        shell: site.shell("Sign in", "", None),
        has_sign_in: site.access.has_sign_in(),
        is_wrong: false,
        to: place(&parameters),
    })
}

pub(super) async fn sign_in(State(site): Shared, request: Request) -> Page {
    let own: Result<(), Problem> = is_own(request.headers());
    own?;
    let fields = fields(request).await?;
    let to = place(&fields);
    let secret = fields.get("token").unwrap_or_default().trim();
    let Some((principal, cookie)) = site.access.sign_in(secret) else {
        tracing::warn!("somebody tried to sign in with a token that is nobody's");
        let page = html(&SignIn {
            shell: site.shell("Sign in", "", None),
            has_sign_in: site.access.has_sign_in(),
            is_wrong: true,
            to,
        })?;
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    };
    tracing::info!(by = principal.name(), "somebody signed in");
    let mut response = see_other(&to);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

pub(super) async fn sign_out(Form(_): Form) -> Page {
    let mut headers = HeaderMap::new();
    headers.insert(header::SET_COOKIE, NO_COOKIE);
    Ok((headers, see_other("/admin/sign-in")).into_response())
}

/// The page of ours that the parameter `to` names; the first one where it names none.
fn place(parameters: &Parameters) -> String {
    let to = parameters.get("to").unwrap_or_default();
    let rest = to.strip_prefix("/admin");
    let is_ours = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let is_plain = to.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if is_ours && is_plain { to } else { "/admin" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_to_no_page_but_ours() {
        let leads = |to: &str| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("to", to);
            place(&Parameters::of(query.finish().as_bytes()))
        };
        for to in ["/admin", "/admin/views/post?query=a%3Db", "/admin?done=x"] {
            assert_eq!(leads(to), to);
        }
        for to in [
            "",
            "//evil.example",
            "https://evil.example/admin",
            "/administrator",
            "/admin\\@evil.example",
            "/admin/\r\nset-cookie: a=b",
            "/metrics",
        ] {
            assert_eq!(leads(to), "/admin", "{to:?}");
        }
    }
}
