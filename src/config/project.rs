//! Where a project is, read from its URL.

use http::uri::{Authority, Scheme, Uri};

/// A checked base URL: `http` or `https`, host, port, optional path prefix, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// Without brackets around an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As a Host header says it: the port is left out when it is the scheme's own.
    pub(crate) authority: Authority,
    /// Empty, or `/prefix` without a slash at its end.
    pub(crate) prefix: String,
}

/// What a URL may be.
pub(crate) const ALLOWED: &str =
    "an http or https URL: scheme, host, optional port and path; no user info, query or fragment";

impl Url {
    /// The URL of a path below this one.
    pub(crate) fn below(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority, self.prefix)
    }

    /// Reads a URL. The error says what was found, without what could be a secret in it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("a URL with user info (not shown)".to_owned());
        }
        if text.contains(['?', '#']) {
            return Err("a URL with a query or fragment (not shown)".to_owned());
        }
        let refused = || format!("{text:?}");
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(refused()),
        };
        let authority = uri.authority().ok_or_else(refused)?;
        let host = authority.host();
        let own_port = if tls { 443 } else { 80 };
        let has_port = host.len() < authority.as_str().len();
        // A port out of range is none to http, and would silently become the scheme's own.
        let port = if has_port { authority.port_u16().ok_or_else(refused)? } else { own_port };
        if host.is_empty() || port == 0 {
            return Err(refused());
        }
        let shown = if port == own_port { host.to_owned() } else { format!("{host}:{port}") };
        let prefix = uri.path().trim_end_matches('/');
        if prefix.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(refused());
        }
        Ok(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: shown.parse().map_err(|_| refused())?,
            prefix: prefix.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, tls, host, port, authority, prefix) in [
            ("https://ref.supabase.co", true, "ref.supabase.co", 443, "ref.supabase.co", ""),
            ("https://ref.supabase.co:443/", true, "ref.supabase.co", 443, "ref.supabase.co", ""),
            ("http://127.0.0.1:54321", false, "127.0.0.1", 54321, "127.0.0.1:54321", ""),
            ("http://[::1]:9/base/", false, "::1", 9, "[::1]:9", "/base"),
            ("HTTP://h/a/b", false, "h", 80, "h", "/a/b"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.tls, url.host.as_str(), url.port), (tls, host, port), "{text}");
            assert_eq!(
                (url.authority.as_str(), url.prefix.as_str()),
                (authority, prefix),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused_without_showing_secrets() {
        for text in [
            "",
            "ref.supabase.co",
            "ftp://h",
            "https://",
            "https://:443",
            "https://h:",
            "https://h:0",
            "https://h:99999",
            "https://h/../x",
            "https://a b",
            "https://h\n",
            "postgres://h",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        for text in ["https://user:hunter2@h", "https://h/?apikey=hunter2", "https://h/#hunter2"] {
            assert!(!Url::parse(text).unwrap_err().contains("hunter2"), "{text}");
        }
    }
}
