//! The page's text, and the headers that bind a browser to it.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// The page with its policy, which is made once.
#[derive(Clone)]
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(between(PAGE, "<script>", "</script>")),
            hash(between(PAGE, "<style>", "</style>")),
        );
        // Base64 and the words above are all visible ASCII, which every header may hold.
        let policy = HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
        Self { policy }
    }

    pub(super) fn answer(&self) -> Response {
        let mut response = Response::new(Body::from(Bytes::from_static(PAGE.as_bytes())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A source expression of Content Security Policy, level 3: the hash of an inline element's text.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_runs_its_own_script_and_no_other() {
        let answer = Page::new().answer();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let script = between(PAGE, "<script>", "</script>");
        assert!(script.len() > 1_000 && policy.contains(&hash(script)));
        assert_eq!(PAGE.matches("<script").count(), 1);
    }

    #[test]
    fn nothing_that_arrives_can_become_markup() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "srcdoc",
            " style=",
            "onclick=\"",
        ] {
            assert!(!PAGE.contains(way), "{way}");
        }
        // The only addresses are those of the SVG name space.
        assert_eq!(PAGE.matches("://").count(), PAGE.matches("http://www.w3.org/2000/svg").count());
    }
}
