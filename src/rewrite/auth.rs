//! How the auth service learns the address of the client (`supabase-wire.md` 3.5). It counts sign-ins and mails per address, and behind a
//! proxy everybody would have the proxy's.
//!
//! A self-hosted project reads `X-Forwarded-For`, which every request carries anyway. A hosted one reads `Sb-Forwarded-For`, and only
//! beside a secret key: the anon key that a client presents is replaced by the project's secret one. What that could open is closed:
//!
//! - only the public endpoints that are counted per address, by exact path, so never `/admin`, `/invite` or `/user`;
//! - `Authorization` is always a JWT that says less: the user's own, or the legacy anon key (a secret key without it is `service_role`);
//! - only for a client that presents an anon key, in the header and nowhere else.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::keys::KeyPlaces;
use crate::identify::credentials::APIKEY;
use crate::identify::keyring::SentKey;

const SB_FORWARDED_FOR: HeaderName = HeaderName::from_static("sb-forwarded-for");

/// What a hosted project wants to see beside a client's address.
#[derive(Clone, Debug)]
pub struct Vouching {
    /// An `sb_secret_…` key.
    pub secret: SentKey,
    /// The legacy anon key, a JWT.
    pub anon: SentKey,
}

/// Public endpoints that are counted per address (`supabase-wire.md` 3.1), below `/auth/v1`.
const COUNTED: [&str; 8] =
    ["/signup", "/token", "/otp", "/magiclink", "/recover", "/resend", "/verify", "/sso"];

/// Vouches for the client's address, where that is safe. `headers` has the side's keys already.
pub fn vouch(
    headers: &mut HeaderMap,
    method: &Method,
    tail: &str,
    places: KeyPlaces,
    vouching: &Vouching,
    client: IpAddr,
) {
    if method != Method::POST || !COUNTED.contains(&tail) || !places.is_plain_anon() {
        return;
    }
    let Ok(address) = HeaderValue::from_str(&client.to_string()) else { return };
    match headers.get(header::AUTHORIZATION) {
        // A user's own token stays.
        Some(value) if places.has_token() && is_jwt(value) => {}
        // What else it may be, a gateway could take for a key, and put the secret one's role in its place.
        Some(_) if !places.has_key_as_bearer() => return,
        _ => {
            headers.insert(header::AUTHORIZATION, vouching.anon.bearer.clone());
        }
    }
    headers.insert(APIKEY, vouching.secret.header.clone());
    headers.insert(SB_FORWARDED_FOR, address);
}

/// Whether it has the shape of a token, behind its scheme.
fn is_jwt(value: &HeaderValue) -> bool {
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    token.is_some_and(|(_, token)| {
        let mut parts = token.split('.').map(str::is_empty);
        parts.by_ref().take(3).eq([false; 3]) && parts.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::credentials::Credentials;
    use crate::identify::keyring::{Keyring, ProjectKeys, UnknownKeys};
    use crate::secret::Secret;
    use crate::side::Pair;

    const ANON: &str = "a.b.c";

    /// `apikey` and `Authorization` as the side gets them, and the client's address.
    fn vouched(
        method: Method,
        tail: &str,
        headers: &[(&'static str, &str)],
        query: Option<&str>,
    ) -> [Option<String>; 3] {
        let keys = |anon: &str, service: &str| ProjectKeys {
            anon: vec![Secret::new(anon)],
            service: vec![Secret::new(service)],
        };
        let projects = Pair { old: keys(ANON, "sb_secret_x"), new: ProjectKeys::default() };
        let keyring = Keyring::build(&projects, UnknownKeys::Pass).unwrap();
        let mut map: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap()).collect();
                (HeaderName::from_static(name), HeaderValue::from_bytes(&bytes).unwrap())
            })
            .collect();
        let places = KeyPlaces::of(&Credentials::of(&map, query, &keyring));
        let vouching = Vouching {
            secret: SentKey::of(&Secret::new("sb_secret_x")).unwrap(),
            anon: SentKey::of(&Secret::new(ANON)).unwrap(),
        };
        vouch(&mut map, &method, tail, places, &vouching, [192, 0, 2, 1].into());
        ["apikey", "authorization", "sb-forwarded-for"].map(|name| {
            let bytes = map.get(name)?.as_bytes();
            Some(bytes.iter().map(|byte| char::from(*byte)).collect())
        })
    }

    #[test]
    fn trap_20_the_auth_service_learns_the_clients_address() {
        let anon_bearer = "Bearer a.b.c";
        for bearer in [None, Some("Bearer a.b.c"), Some("bearer u.s.r"), Some("Bearer u.s.r")] {
            let mut headers = vec![("apikey", ANON)];
            headers.extend(bearer.map(|bearer| ("authorization", bearer)));
            let [apikey, authorization, address] = vouched(Method::POST, "/token", &headers, None);
            assert_eq!(apikey.as_deref(), Some("sb_secret_x"));
            assert_eq!(address.as_deref(), Some("192.0.2.1"));
            let want = bearer.filter(|bearer| bearer.ends_with("u.s.r")).unwrap_or(anon_bearer);
            assert_eq!(authorization.as_deref(), Some(want), "never a secret key alone");
        }
    }

    #[test]
    fn trap_21_nobody_gets_a_secret_key_who_could_use_it() {
        let anon = [("apikey", ANON)];
        for tail in [
            "/admin/users",
            "/invite",
            "/user",
            "/token/",
            "/TOKEN",
            "//token",
            "/%74oken",
            "/admin/../token",
            "/factors/x/verify",
            "/logout",
            "",
            "/",
        ] {
            let [apikey, _, address] = vouched(Method::POST, tail, &anon, None);
            assert_eq!((apikey.as_deref(), address), (Some(ANON), None), "{tail}");
        }
        for (method, headers, query) in [
            (Method::GET, &anon[..], None),
            (Method::POST, &[], None),
            (Method::POST, &[], Some("apikey=a.b.c")),
            (Method::POST, &anon, Some("apikey=a.b.c")),
            (Method::POST, &[("apikey", "stranger")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer sb_secret_x")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer sb_other")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Basic abc")], None),
            // A gateway goes by the first letters, and gives whoever sends these the role of the apikey.
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer sb_x\u{ff}")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer \u{ff}")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "bearer")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer SB_SECRET_X")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer a.b")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer a..c")], None),
            (Method::POST, &[("apikey", ANON), ("authorization", "Bearer a.b.c.d")], None),
        ] {
            let [apikey, authorization, address] = vouched(method, "/token", headers, query);
            assert_eq!(address, None, "{headers:?}");
            let sent =
                |name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            assert_eq!((apikey, authorization), (sent("apikey"), sent("authorization")));
        }
    }
}
