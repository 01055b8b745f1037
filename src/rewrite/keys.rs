//! The client's API keys become the chosen side's keys of the same role, wherever they stand (`supabase-wire.md` 1.3,
//! traps 1 to 3). A user's token is never touched here.

use http::{HeaderMap, HeaderName, header};

use super::headers::has_repeated;
use crate::identify::credentials::{APIKEY, APIKEY_HEADER, ApiKey, Bearer, Credentials};
use crate::identify::keyring::{Keyring, Role, UnknownKeys};
use crate::identify::query;
use crate::side::Side;

/// Where keys stand in a request: what of [`Credentials`] outlives the headers it was read from.
#[derive(Clone, Copy, Debug)]
pub struct KeyPlaces {
    header: Option<Role>,
    query: Option<Role>,
    bearer: Option<Role>,
    has_token: bool,
    has_unknown: bool,
}

impl KeyPlaces {
    /// What is there to be swapped.
    #[must_use]
    pub fn of(credentials: &Credentials<'_>) -> Self {
        let role = |key| match key {
            ApiKey::Known(role) => Some(role),
            ApiKey::Absent | ApiKey::Unknown => None,
        };
        let bearer = match credentials.bearer {
            Bearer::Key(role) => Some(role),
            _ => None,
        };
        Self {
            header: role(credentials.header),
            query: role(credentials.query),
            bearer,
            has_token: matches!(credentials.bearer, Bearer::Token(_)),
            has_unknown: credentials.has_unknown_key(),
        }
    }

    /// Whether a request with these keys is let in at all.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`] for a stranger's key, unless `keys.unknown = "pass"`.
    pub fn check(self, keyring: &Keyring) -> Result<(), KeyRefused> {
        match self.has_unknown && keyring.unknown == UnknownKeys::Refuse {
            true => Err(KeyRefused::Unknown),
            false => Ok(()),
        }
    }
}

impl KeyPlaces {
    /// Whether the one key that was presented is an anon key in the `apikey` header, perhaps repeated as Bearer.
    #[must_use]
    pub fn is_plain_anon(&self) -> bool {
        self.header == Some(Role::Anon)
            && self.query.is_none()
            && self.bearer != Some(Role::Service)
            && !self.has_unknown
    }

    /// Whether `Authorization` holds a key.
    #[must_use]
    pub fn has_key_as_bearer(&self) -> bool {
        self.bearer.is_some()
    }

    /// Whether `Authorization` holds what is by rule a user's token: a text that is no key, whosever.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.has_token
    }
}

/// Why a request's keys can't be swapped. Nothing is forwarded then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// A key of neither project.
    #[error("a key of neither project")]
    Unknown,
    /// The side has no key of this role configured.
    #[error("the chosen project has no key of this role")]
    NoneForRole(Role),
}

/// Swaps every key. Answers the new raw query when the query held a key.
///
/// # Errors
/// [`KeyRefused`]; the headers may be half changed then and must not be sent.
pub fn swap(
    headers: &mut HeaderMap,
    raw_query: Option<&str>,
    places: KeyPlaces,
    keyring: &Keyring,
    side: Side,
) -> Result<Option<String>, KeyRefused> {
    places.check(keyring)?;
    // The first one is the one that was looked at: a second one must not be what the side believes.
    if has_repeated(headers) {
        keep_first(headers, &APIKEY_HEADER);
        keep_first(headers, &header::AUTHORIZATION);
    }
    let key = |role| keyring.key_for(side, role).ok_or(KeyRefused::NoneForRole(role));
    if let Some(role) = places.header {
        headers.insert(APIKEY_HEADER, key(role)?.header.clone());
    }
    if let Some(role) = places.bearer {
        headers.insert(header::AUTHORIZATION, key(role)?.bearer.clone());
    }
    match (places.query, raw_query) {
        (Some(role), Some(raw_query)) => {
            Ok(query::replace(raw_query, APIKEY, key(role)?.text.expose()))
        }
        _ => Ok(None),
    }
}

fn keep_first(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.get_all(name).iter().nth(1).is_some()
        && let Some(first) = headers.get(name).cloned()
    {
        headers.insert(name, first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::keyring::ProjectKeys;
    use crate::secret::Secret;
    use crate::side::Pair;

    fn keyring(unknown: UnknownKeys) -> Keyring {
        let keys = |anon: &[&str], service: &[&str]| ProjectKeys {
            anon: anon.iter().map(|key| Secret::new(key)).collect(),
            service: service.iter().map(|key| Secret::new(key)).collect(),
        };
        let projects = Pair {
            old: keys(&["a.old.jwt"], &["s.old.jwt"]),
            new: keys(&["sb_publishable_n", "a.new.jwt"], &[]),
        };
        Keyring::build(&projects, unknown).unwrap()
    }

    type Swapped = Result<(Option<String>, Option<String>, Option<String>), KeyRefused>;

    fn swapped(
        apikey: Option<&str>,
        authorization: Option<&str>,
        query: Option<&str>,
        side: Side,
    ) -> Swapped {
        swapped_by(&keyring(UnknownKeys::Refuse), apikey, authorization, query, side)
    }

    fn swapped_by(
        keyring: &Keyring,
        apikey: Option<&str>,
        authorization: Option<&str>,
        query: Option<&str>,
        side: Side,
    ) -> Swapped {
        let mut headers = HeaderMap::new();
        for (name, value) in [("apikey", apikey), ("authorization", authorization)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let places = KeyPlaces::of(&Credentials::of(&headers, query, keyring));
        let query = swap(&mut headers, query, places, keyring, side)?;
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        Ok((text("apikey"), text("authorization"), query))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn trap_01_keys_are_swapped_in_header_query_and_authorization() {
        let query = Some("vsn=2.0.0&apikey=a.old.jwt&log_level=info");
        assert_eq!(
            swapped(Some("a.old.jwt"), Some("Bearer a.old.jwt"), query, Side::New),
            Ok((
                some("sb_publishable_n"),
                some("Bearer sb_publishable_n"),
                some("vsn=2.0.0&apikey=sb_publishable_n&log_level=info")
            ))
        );
        // A key of the new project, in either format, going to the old one.
        for key in ["sb_publishable_n", "a.new.jwt"] {
            assert_eq!(
                swapped(Some(key), None, None, Side::Old),
                Ok((some("a.old.jwt"), None, None))
            );
        }
    }

    #[test]
    fn trap_02_a_user_token_stays() {
        let token = "Bearer aaa.bbb.ccc";
        assert_eq!(
            swapped(Some("a.old.jwt"), Some(token), None, Side::New),
            Ok((some("sb_publishable_n"), some(token), None))
        );
    }

    #[test]
    fn trap_03_roles_are_kept_and_unknown_keys_refused() {
        assert_eq!(
            swapped(Some("s.old.jwt"), None, None, Side::Old),
            Ok((some("s.old.jwt"), None, None))
        );
        assert_eq!(
            swapped(Some("s.old.jwt"), None, None, Side::New),
            Err(KeyRefused::NoneForRole(Role::Service)),
            "never another role's key in its place"
        );
        for (apikey, authorization, query) in [
            (Some("stranger"), None, None),
            (None, Some("Bearer sb_secret_stranger"), None),
            (Some("a.old.jwt"), None, Some("apikey=stranger")),
            (Some("aaa.bbb.ccc"), Some("Bearer aaa.bbb.ccc"), None),
        ] {
            assert_eq!(swapped(apikey, authorization, query, Side::Old), Err(KeyRefused::Unknown));
            let passed =
                swapped_by(&keyring(UnknownKeys::Pass), apikey, authorization, query, Side::Old)
                    .unwrap();
            assert_eq!((passed.1.as_deref(), passed.2), (authorization, None));
        }
    }
}
