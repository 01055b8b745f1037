//! The console: one page at `/` for whoever watches a rollout and moves it.
//!
//! The page is plain files inside the binary and holds no data; all that it shows it asks of the routes that every
//! other client uses, and of [`events`]. It makes no request to anywhere else, and its headers forbid it.

pub(super) mod events;
mod frame;
pub(super) mod session;

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::AdminError;
use events::Events;
use session::{Logins, Sessions};

/// What the page may do: its own scripts, styles and requests, and nothing else. No script can be put into it as text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What data may do if a browser is made to show it as a page: nothing.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Where the page's files are; the page itself is at `/`.
pub(super) const PAGE: &str = "/";
pub(super) const FILES: &str = "/console/";

/// What the console keeps between requests.
#[derive(Debug, Default)]
pub(super) struct Console {
    pub(super) sessions: Sessions,
    pub(super) logins: Logins,
    pub(super) events: Events,
}

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    /// Quoted, of the content.
    tag: String,
}

macro_rules! assets {
    ($($name:literal $kind:ident),* $(,)?) => {
        [$(Asset::new($name, $kind, include_str!($name))),*]
    };
}

static ASSETS: LazyLock<[Asset; 14]> = LazyLock::new(|| {
    assets![
        "index.html" HTML,
        "console.css" CSS,
        "icon.svg" SVG,
        "main.js" SCRIPT,
        "api.js" SCRIPT,
        "charts.js" SCRIPT,
        "dialogs.js" SCRIPT,
        "dom.js" SCRIPT,
        "explain.js" SCRIPT,
        "format.js" SCRIPT,
        "lists.js" SCRIPT,
        "login.js" SCRIPT,
        "rollout.js" SCRIPT,
        "theme.js" SCRIPT,
    ]
});

impl Asset {
    fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        let digest = Sha256::digest(text);
        let tag = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { name, kind, text, tag: format!("\"{tag}\"") }
    }
}

pub(super) async fn page(headers: HeaderMap) -> Response {
    serve("index.html", &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    serve(&name, &headers)
}

/// The browser keeps a file and asks each time whether it is still the same: a new binary shows at once.
fn serve(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return AdminError::not_found().into_response();
    };
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| {
            tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag)
        })
    });
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.kind)], asset.text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if let Ok(tag) = HeaderValue::try_from(asset.tag.as_str()) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// On every answer of the listener: a browser keeps no data, takes nothing for what it is not, and frames nothing.
pub(super) async fn strict(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, DATA_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served_and_holds_no_script_or_style_in_its_text() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/console");
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".rs"))
            .collect();
        names.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        served.sort_unstable();
        assert_eq!(names, served);
        for asset in ASSETS.iter() {
            for word in
                ["innerHTML", "insertAdjacentHTML", "eval(", " style=\"", "<style", "onclick="]
            {
                assert!(!asset.text.contains(word), "{}: {word}", asset.name);
            }
            // The policy forbids requests elsewhere; the files don't even name another place.
            let elsewhere = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{} names another origin", asset.name);
            assert!(asset.text.lines().count() <= 450, "{} is too long", asset.name);
        }
    }
}
