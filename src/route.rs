//! Which Supabase service a path belongs to. Everything that is not listed is denied
//! (`supabase-wire.md` 1.1: a default-deny route table is the safe design).

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// A Supabase service, as the first two segments of a path name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// PostgREST: `/rest/v1`.
    Rest,
    /// GoTrue: `/auth/v1`.
    Auth,
    /// Storage: `/storage/v1`.
    Storage,
    /// Edge functions: `/functions/v1`.
    Functions,
    /// Realtime: `/realtime/v1`.
    Realtime,
    /// `pg_graphql`: `/graphql/v1`.
    Graphql,
}

impl Route {
    /// Every route, in the order of the metrics' label.
    pub const ALL: [Self; 6] =
        [Self::Rest, Self::Auth, Self::Storage, Self::Functions, Self::Realtime, Self::Graphql];

    /// The name used in settings, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Auth => "auth",
            Self::Storage => "storage",
            Self::Functions => "functions",
            Self::Realtime => "realtime",
            Self::Graphql => "graphql",
        }
    }

    /// The path prefix, without a slash at its end.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Rest => "/rest/v1",
            Self::Auth => "/auth/v1",
            Self::Storage => "/storage/v1",
            Self::Functions => "/functions/v1",
            Self::Realtime => "/realtime/v1",
            Self::Graphql => "/graphql/v1",
        }
    }

    /// Finds the route of a raw path, or `None` when the path is served by neither project.
    /// The rest of the path, from the slash after the prefix (or empty), is in [`Route::tail`].
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let route = Self::ALL.into_iter().find(|route| {
            path.strip_prefix(route.prefix())
                .is_some_and(|tail| tail.is_empty() || tail.starts_with('/'))
        })?;
        let denied = route == Self::Realtime && is_tenants_api(route.tail(path));
        (!denied).then_some(route)
    }

    /// What follows the route's prefix in `path`: empty, or text that begins with a slash.
    #[must_use]
    pub fn tail(self, path: &str) -> &str {
        path.strip_prefix(self.prefix()).unwrap_or_default()
    }
}

/// The realtime tenants API is an administrator's; Supabase's own gateways answer 403 there. Whoever looks at the path after us may decode it
/// and merge its slashes, so both are done here.
fn is_tenants_api(tail: &str) -> bool {
    let decoded = percent_decode_str(tail).decode_utf8_lossy();
    let mut segments = decoded.split('/').filter(|segment| !segment.is_empty());
    segments.next().is_some_and(|first| first.eq_ignore_ascii_case("api"))
        && segments.next().is_some_and(|second| second.eq_ignore_ascii_case("tenants"))
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_paths_have_a_route() {
        let table = [
            ("/rest/v1/todos", Some(Route::Rest)),
            ("/rest/v1/", Some(Route::Rest)),
            ("/rest/v1", Some(Route::Rest)),
            ("/rest/v10/todos", None),
            ("/auth/v1/token", Some(Route::Auth)),
            ("/graphql/v1", Some(Route::Graphql)),
            ("/realtime/v1/websocket", Some(Route::Realtime)),
            ("/realtime/v1/api/broadcast", Some(Route::Realtime)),
            ("/realtime/v1/api/tenants", None),
            ("/realtime/v1/api/tenants/x", None),
            ("/realtime/v1/api/%74enants", None),
            ("/realtime/v1//api//tenants", None),
            ("/realtime/v1/api%2Ftenants", None),
            ("/realtime/v1/api/tenantship", Some(Route::Realtime)),
            ("/pg/tables", None),
            ("/analytics/v1", None),
            ("/mcp", None),
            ("/", None),
            ("", None),
            ("/REST/v1/todos", None),
        ];
        for (path, want) in table {
            assert_eq!(Route::of(path), want, "{path}");
        }
    }
}
