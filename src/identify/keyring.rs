//! The API keys of both projects, and the exact, role-preserving swap between them
//! (`supabase-wire.md` 1.3, trap 3: never promote, never guess).

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::side::{Pair, Side};

/// What a key may do. A swap never changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `anon` or publishable: row level security applies.
    Anon,
    /// `service_role` or secret: bypasses row level security.
    Service,
}

/// What to do with a key that belongs to neither project (`keys.unknown`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownKeys {
    /// Answer 401 and forward nothing.
    #[default]
    Refuse,
    /// Forward the key as it is; the side refuses it.
    Pass,
}

/// One project's keys. The first of each list is the one sent to that project.
#[derive(Clone, Debug, Default)]
pub struct ProjectKeys {
    /// `anon_key`: legacy JWTs and `sb_publishable_…`.
    pub anon: Vec<Secret>,
    /// `service_role_key`: legacy JWTs and `sb_secret_…`.
    pub service: Vec<Secret>,
}

/// Every known key.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// What to do with a key that is not here.
    pub unknown: UnknownKeys,
    /// A handful, of which a text is compared with those of its own length: nearly always none for a user's token, and one for a key. A
    /// map would be asked by a hash, and its answer take longer for a text that begins like a key.
    roles: Vec<(Secret, Role)>,
    sent: Pair<[Option<SentKey>; 2]>,
}

/// The key that is sent to a side, in the forms in which it is sent. Marked sensitive, so that its `Debug` is redacted.
#[derive(Clone, Debug)]
pub struct SentKey {
    /// The key itself.
    pub text: Secret,
    /// As the value of `apikey`.
    pub header: HeaderValue,
    /// As the value of `Authorization`.
    pub bearer: HeaderValue,
}

impl SentKey {
    /// `None` for a text that can't stand in a header; `config` refuses such keys by name.
    #[must_use]
    pub fn of(key: &Secret) -> Option<Self> {
        let (header, bearer) = (key.header().ok()?, key.bearer().ok()?);
        Some(Self { text: key.clone(), header, bearer })
    }
}

/// Two projects that use one key for two roles: no swap could keep the role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the same key is listed as anon_key and as service_role_key")]
pub struct RoleConflict;

impl Keyring {
    /// Collects both projects' keys.
    ///
    /// # Errors
    /// [`RoleConflict`] when one text is listed in both roles, on whichever side.
    pub fn build(projects: &Pair<ProjectKeys>, unknown: UnknownKeys) -> Result<Self, RoleConflict> {
        let mut ring = Self { unknown, ..Self::default() };
        for side in Side::ALL {
            let keys = &projects[side];
            for (role, list) in [(Role::Anon, &keys.anon), (Role::Service, &keys.service)] {
                ring.sent[side][role as usize] = list.first().and_then(SentKey::of);
                for key in list {
                    match ring.role(key.expose()) {
                        None => ring.roles.push((key.clone(), role)),
                        Some(known) if known == role => {}
                        Some(_) => return Err(RoleConflict),
                    }
                }
            }
        }
        Ok(ring)
    }

    /// The role of a key of either project; `None` when the key is unknown.
    #[must_use]
    pub fn role(&self, key: &str) -> Option<Role> {
        // All of them, so that the time does not tell which one it was.
        self.roles.iter().fold(None, |found, (known, role)| match known.is(key) {
            true => Some(*role),
            false => found,
        })
    }

    /// The key of this role that is sent to `side`; `None` when that side has none configured.
    #[must_use]
    pub fn key_for(&self, side: Side, role: Role) -> Option<&SentKey> {
        self.sent[side][role as usize].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(anon: &[&str], service: &[&str]) -> ProjectKeys {
        let secrets = |list: &[&str]| list.iter().map(|text| Secret::new(text)).collect();
        ProjectKeys { anon: secrets(anon), service: secrets(service) }
    }

    #[test]
    fn a_swap_keeps_the_role_and_sends_the_first_of_the_list() {
        let projects = Pair {
            old: keys(&["old-jwt"], &["old-service"]),
            new: keys(&["sb_publishable_n", "new-jwt"], &["sb_secret_n"]),
        };
        let ring = Keyring::build(&projects, UnknownKeys::Refuse).unwrap();
        assert_eq!(ring.role("new-jwt"), Some(Role::Anon));
        assert_eq!(ring.role("old-service"), Some(Role::Service));
        assert_eq!(ring.role("stranger"), None);
        assert_eq!(ring.key_for(Side::New, Role::Anon).unwrap().text.expose(), "sb_publishable_n");
        assert_eq!(ring.key_for(Side::New, Role::Service).unwrap().text.expose(), "sb_secret_n");
    }

    #[test]
    fn one_key_in_two_roles_is_refused() {
        let projects = Pair { old: keys(&["k"], &[]), new: keys(&[], &["k"]) };
        assert_eq!(Keyring::build(&projects, UnknownKeys::Refuse).unwrap_err(), RoleConflict);
    }
}
