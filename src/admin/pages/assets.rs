//! What pages load, out of the program itself.

use axum::extract::Path;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use tidelog_http::{Problem, ProblemKind};

/// The stylesheet. Its name changes with it: browsers keep what they have for a year.
pub(super) const STYLE: &str = concat!("style-", env!("CARGO_PKG_VERSION"), ".css");

/// htmx as its project ships it, under its own version's name. `README.md` says where it is from.
pub(super) const HTMX: &str = "htmx-4.0.1.min.js";

const HTMX_BYTES: &[u8] = include_bytes!("assets/htmx-4.0.1.min.js");

/// For how long a browser keeps what is named after its version.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// For how long it keeps what is not.
const BRIEFLY: &str = "no-cache";

/// Gives an asset.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let (bytes, kind, kept): (&'static [u8], _, _) = match name.as_str() {
        // While it is worked on, its version stays.
        STYLE => (
            include_bytes!("assets/style.css"),
            "text/css; charset=utf-8",
            BRIEFLY,
        ),
        HTMX => (HTMX_BYTES, "text/javascript; charset=utf-8", FOREVER),
        "icon.svg" => (include_bytes!("assets/icon.svg"), "image/svg+xml", BRIEFLY),
        _ => {
            return Problem::new(ProblemKind::NotFound, "There is no such asset.").into_response();
        }
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, kept),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    (headers, bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn htmx_is_what_its_project_shipped() {
        let digest = ring::digest::digest(&ring::digest::SHA256, HTMX_BYTES);
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
        );
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_style_stands_in_a_page() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/pages/templates");
        let mut seen = 0;
        for file in std::fs::read_dir(directory).unwrap() {
            let file = file.unwrap().path();
            let text = std::fs::read_to_string(&file).unwrap();
            for part in [
                "http://", "https://", "style=", "<style", "onclick", "hx-on", "|safe", "hx-post",
            ] {
                assert!(!text.contains(part), "{part} in {}", file.display());
            }
            seen += 1;
        }
        assert!(seen > 10);
    }
}
