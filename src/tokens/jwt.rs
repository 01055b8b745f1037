//! A token taken apart: strictly, because what is signed again here must be what every other reader would have read.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serializer as _};
use serde_json::value::RawValue;

use super::key::{Algorithm, VerifyingKey};

/// A longer token is left to its side. Supabase's have about 1 KB; what hooks add to them has to fit into a header anyway.
pub const LONGEST_TOKEN: usize = 16 * 1024;

/// How far clocks may differ, in seconds: `PostgREST`'s own leeway for `exp` and `nbf`.
pub const LEEWAY: u64 = 30;

/// A token in compact form (RFC 7515 3.1), read but not verified. Without `Debug`: a token is a secret.
pub(super) struct Jwt<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    claims: Vec<u8>,
    /// What was signed: the first two parts.
    message: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that a reader must understand (RFC 7515 4.1.11). This one knows none.
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

/// The claims that decide whether, and how, a token is signed again.
#[derive(Deserialize)]
pub(super) struct Terms {
    #[serde(default, deserialize_with = "number")]
    exp: Option<f64>,
    #[serde(default, deserialize_with = "number")]
    nbf: Option<f64>,
    #[serde(default, rename = "iat", deserialize_with = "number")]
    _iat: Option<f64>,
    #[serde(default)]
    pub(super) iss: Option<serde_json::Value>,
    #[serde(default)]
    sub: Option<serde_json::Value>,
    #[serde(default)]
    role: Option<serde_json::Value>,
}

/// Reads an object, and nothing else: by itself serde takes a list of the values as well.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok())?
}

/// A number, and nothing else: `null` is no time that all readers agree on.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(deserializer).map(Some)
}

impl<'a> Jwt<'a> {
    /// Reads a token: three parts in base64url without padding, a known `alg`, no `crit`. Anything else is `None`.
    pub(super) fn read(token: &'a str) -> Option<Self> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Header = object(&URL_SAFE_NO_PAD.decode(header).ok()?)?;
        if header.crit.is_some() {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::parse(&header.alg)?,
            kid: header.kid,
            claims: URL_SAFE_NO_PAD.decode(claims).ok()?,
            message,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Its terms; `None` when they can't be read: times that are no numbers, a claim that is there twice.
    pub(super) fn terms(&self) -> Option<Terms> {
        object(&self.claims)
    }

    /// Whether this key signed it, and is made for what the token says.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.algorithm() == self.algorithm && key.verifies(self.message.as_bytes(), &self.signature)
    }

    /// The claims as the other side gets them: every one with its name, place and bytes, but for `iss`, which is the target's, and an
    /// `iat` in the future, which becomes `now`. `None` for claims that are no object, or name one twice.
    pub(super) fn reissued(&self, issuer: &str, now: u64) -> Option<Vec<u8>> {
        let Claims(claims) = serde_json::from_slice(&self.claims).ok()?;
        let iss = serde_json::value::to_raw_value(issuer).ok()?;
        let now_value = serde_json::value::to_raw_value(&now).ok()?;
        let mut written = Vec::with_capacity(self.claims.len() + issuer.len() + 16);
        let mut writer = serde_json::Serializer::new(&mut written);
        let replaced = claims.iter().map(|(name, value)| {
            let is_future = || value.get().parse::<f64>().is_ok_and(|iat| iat > now as f64);
            let value = match name.as_str() {
                "iss" => &*iss,
                "iat" if is_future() => &*now_value,
                _ => value,
            };
            (name.as_str(), value)
        });
        let has_issuer = claims.iter().any(|(name, _)| name == "iss");
        let added = (!has_issuer).then_some(("iss", &*iss));
        writer.collect_map(replaced.chain(added)).ok()?;
        Some(written)
    }
}

impl Terms {
    /// Whether a side would take it at this time.
    pub(super) fn stand(&self, now: u64) -> bool {
        let (now, leeway) = (now as f64, LEEWAY as f64);
        self.exp.is_none_or(|exp| now <= exp + leeway)
            && self.nbf.is_none_or(|nbf| nbf <= now + leeway)
    }

    /// Whether it speaks for a user, or at least for a role that is bound by policies. A project signs other papers with the same secret:
    /// its service role key, and the tokens of signed URLs. None of these is a user's.
    pub(super) fn is_for_a_user(&self) -> bool {
        let [sub, role] = [&self.sub, &self.role]
            .map(|claim| claim.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default());
        !sub.is_empty() || !matches!(role, "" | "service_role")
    }

    /// Its last second; [`u64::MAX`] for a token without `exp`.
    pub(super) fn end(&self) -> u64 {
        // A cast from a float saturates.
        self.exp.map_or(u64::MAX, |exp| exp as u64)
    }
}

/// An object's members in their order, each value as it was written.
struct Claims<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Claims<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                let mut seen = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // Readers differ in which of two they take: neither may be vouched for.
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a claim is there twice"));
                    }
                    members.push((name, value));
                }
                Ok(Claims(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unsigned(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    const HS256: &str = r#"{"alg":"HS256"}"#;

    #[test]
    fn what_is_no_token_is_not_read() {
        let good = unsigned(HS256, "{}");
        assert!(Jwt::read(&good).is_some());
        for text in [
            String::new(),
            "..".into(),
            "a.b.c".into(),
            format!("{good}."),
            format!("{good}.c2ln"),
            format!("{good}="),
            format!(" {good}"),
            format!("{good}\n"),
            good.replace('.', ".."),
            // Bits that nobody reads: two texts would be one token.
            good.replace("c2ln", "c2lnYR"),
            unsigned(r#"{"alg":"none"}"#, "{}"),
            unsigned(r#"{"alg":"hs256"}"#, "{}"),
            unsigned(r#"{"alg":"HS512"}"#, "{}"),
            unsigned(r#"{"alg":["HS256"]}"#, "{}"),
            unsigned(r#"{"alg":"HS256","alg":"HS256"}"#, "{}"),
            unsigned(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "{}"),
            unsigned(r#"{"alg":"HS256","kid":7}"#, "{}"),
            unsigned("{}", "{}"),
            unsigned(r#"["HS256"]"#, "{}"),
            unsigned(HS256, &" ".repeat(LONGEST_TOKEN)),
        ] {
            assert!(Jwt::read(&text).is_none(), "{text:.80}");
        }
    }

    #[test]
    fn times_are_numbers_and_have_a_leeway() {
        let now = 1_800_000_000_u64;
        for (claims, stands) in [
            (json!({}), Some(true)),
            (json!({"exp": now + 60}), Some(true)),
            (json!({"exp": now - LEEWAY}), Some(true)),
            (json!({"exp": now - LEEWAY - 1}), Some(false)),
            (json!({"exp": now as f64 + 0.5}), Some(true)),
            (json!({"exp": 0}), Some(false)),
            (json!({"exp": -1}), Some(false)),
            (json!({"nbf": now + LEEWAY}), Some(true)),
            (json!({"nbf": now + LEEWAY + 1}), Some(false)),
            (json!({"exp": "1900000000"}), None),
            (json!({"exp": true}), None),
            (json!({"exp": null}), None),
            (json!({"nbf": []}), None),
            (json!({"iat": "now"}), None),
            (json!([]), None),
            (json!("text"), None),
        ] {
            let token = unsigned(HS256, &claims.to_string());
            let terms = Jwt::read(&token).unwrap().terms();
            assert_eq!(terms.map(|terms| terms.stand(now)), stands, "{claims}");
        }
        let twice = unsigned(HS256, r#"{"exp":1,"exp":1900000000}"#);
        assert!(Jwt::read(&twice).unwrap().terms().is_none());
    }

    #[test]
    fn claims_keep_name_order_and_bytes() {
        for (claims, want) in [
            (
                r#"{ "sub":"a\u00e9", "iss" : "x", "exp":1e10, "n":1.0, "big":123456789012345678901234567890, "o":{"b":1, "a":[ ]}, "iat":5 }"#,
                r#"{"sub":"a\u00e9","iss":"new","exp":1e10,"n":1.0,"big":123456789012345678901234567890,"o":{"b":1, "a":[ ]},"iat":5}"#,
            ),
            (r#"{"sub":"a"}"#, r#"{"sub":"a","iss":"new"}"#),
            ("{}", r#"{"iss":"new"}"#),
            (r#"{"iss":null}"#, r#"{"iss":"new"}"#),
            (r#"{"iat":101.5}"#, r#"{"iat":100,"iss":"new"}"#),
            (r#"{"iat":99.5}"#, r#"{"iat":99.5,"iss":"new"}"#),
            (r#"{"iat":1e300}"#, r#"{"iat":100,"iss":"new"}"#),
        ] {
            let token = unsigned(HS256, claims);
            let written = Jwt::read(&token).unwrap().reissued("new", 100).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), want);
        }
        for claims in [r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a","su\u0062":"b"}"#, "[]", "{", "1"]
        {
            let token = unsigned(HS256, claims);
            assert!(Jwt::read(&token).unwrap().reissued("new", 100).is_none(), "{claims}");
        }
    }
}
