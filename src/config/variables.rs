//! Which key a variable sets: the well-known names, and `CUTOVER_SECTION__KEY` for every key there is.

use super::keys::Key;

/// The well-known variables and their keys.
pub(crate) const WELL_KNOWN: [(&str, &str); 18] = [
    (PERCENTAGE, "rollout.percentage"),
    (FORCE, "rollout.force"),
    ("SUPABASE_URL_OLD", "projects.old.url"),
    ("SUPABASE_URL_NEW", "projects.new.url"),
    ("SUPABASE_ANON_KEY_OLD", "projects.old.anon_key"),
    ("SUPABASE_ANON_KEY_NEW", "projects.new.anon_key"),
    ("SUPABASE_SERVICE_ROLE_KEY_OLD", "projects.old.service_role_key"),
    ("SUPABASE_SERVICE_ROLE_KEY_NEW", "projects.new.service_role_key"),
    ("SUPABASE_JWT_SECRET_OLD", "projects.old.jwt_secret"),
    ("SUPABASE_JWT_SECRET_NEW", "projects.new.jwt_secret"),
    ("SUPABASE_DB_URL_OLD", "projects.old.database_url"),
    ("SUPABASE_DB_URL_NEW", "projects.new.database_url"),
    ("CUTOVER_ADMIN_TOKEN", "admin.token"),
    // OpenTelemetry's own; its variable of the timeout counts in milliseconds, and is not among them.
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.endpoint"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "telemetry.protocol"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.headers"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "telemetry.ca"),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
];

/// The variable of the percentage.
pub(crate) const PERCENTAGE: &str = "V2_ROLLOUT_PERCENTAGE";
/// The variable of the force; it has words of its own, see [`force_of_word`].
pub(crate) const FORCE: &str = "SUPABASE_ENV";

/// What a variable's name means.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// It sets `key`; `path` is longer than the key's own inside a free table.
    Sets { key: &'static Key, path: String },
    /// Its value is the path of a file that holds the secret.
    SetsFromFile { key: &'static Key, path: String },
    /// Not ours.
    Ignored,
    /// It begins as ours do and names no key.
    Unknown { nearest: Option<&'static str> },
}

/// Finds out what a variable means.
pub(crate) fn meaning(name: &str) -> Meaning {
    if let Some((key, path)) = key_of(name) {
        return Meaning::Sets { key, path };
    }
    let secret = name.strip_suffix("_FILE").and_then(key_of).filter(|(key, _)| key.is_secret());
    if let Some((key, path)) = secret {
        return Meaning::SetsFromFile { key, path };
    }
    match name.strip_prefix("CUTOVER_") {
        None | Some("ADMIN_URL") => Meaning::Ignored,
        Some(rest) if is_service_link(rest) => Meaning::Ignored,
        Some(rest) => Meaning::Unknown { nearest: Key::nearest(&dotted(rest)) },
    }
}

/// Whether a variable sets `key`.
pub(crate) fn sets(name: &str, key: &str) -> bool {
    matches!(meaning(name), Meaning::Sets { path, .. } if path == key)
}

fn key_of(name: &str) -> Option<(&'static Key, String)> {
    if let Some((_, key)) = WELL_KNOWN.iter().find(|(known, _)| *known == name) {
        return Key::find(key).map(|found| (found, (*key).to_owned()));
    }
    let path = dotted(name.strip_prefix("CUTOVER_")?);
    Key::owning(&path).map(|key| (key, path))
}

fn dotted(rest: &str) -> String {
    rest.to_ascii_lowercase().replace("__", ".")
}

/// Kubernetes puts the address of every Service into the environment of every pod; a Service named `cutover…` must
/// not stop Cutover: `CUTOVER_SERVICE_HOST`, `CUTOVER_PORT`, `CUTOVER_ADMIN_PORT_8001_TCP_ADDR`, ….
fn is_service_link(rest: &str) -> bool {
    !rest.contains("__")
        && (rest == "PORT"
            || rest.starts_with("PORT_")
            || rest.ends_with("_PORT")
            || rest.contains("_PORT_")
            || rest.starts_with("SERVICE_")
            || rest.contains("_SERVICE_"))
}

/// The variable that sets a key in a file of variables where none does yet.
pub(crate) fn preferred_name(key: &str) -> String {
    WELL_KNOWN.iter().find(|(_, known)| *known == key).map_or_else(
        || format!("CUTOVER_{}", key.to_ascii_uppercase().replace('.', "__")),
        |(name, _)| (*name).to_owned(),
    )
}

/// What `SUPABASE_ENV` says as a value of `rollout.force`.
pub(crate) fn force_of_word(word: &str) -> Option<&'static str> {
    match word.trim() {
        "" => Some(""),
        "production" => Some("old"),
        "v2" => Some("new"),
        _ => None,
    }
}

/// The other way round.
pub(crate) fn word_of_force(force: &str) -> &'static str {
    match force {
        "old" => "production",
        "new" => "v2",
        _ => "",
    }
}

/// Every variable that the documentation must name.
#[cfg(test)]
pub(crate) fn documented() -> Vec<&'static str> {
    let names = WELL_KNOWN.iter().map(|(name, _)| *name);
    names.chain(["CUTOVER_ADMIN_URL"]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;

    fn sets(name: &str) -> Option<String> {
        match meaning(name) {
            Meaning::Sets { path, .. } => Some(path),
            Meaning::SetsFromFile { path, .. } => Some(format!("file:{path}")),
            _ => None,
        }
    }

    #[test]
    fn names_find_their_keys() {
        for (name, path) in [
            ("V2_ROLLOUT_PERCENTAGE", "rollout.percentage"),
            ("CUTOVER_ROLLOUT__PERCENTAGE", "rollout.percentage"),
            ("CUTOVER_ROLLOUT__DOMAINS__BILLING", "rollout.domains.billing"),
            ("CUTOVER_ROLLOUT__AUDIT_FILE", "rollout.audit_file"),
            ("CUTOVER_DEBUG_HEADERS", "debug_headers"),
            ("CUTOVER_ADMIN_TOKEN", "admin.token"),
            ("CUTOVER_ADMIN_TOKEN_FILE", "file:admin.token"),
            ("SUPABASE_ANON_KEY_OLD_FILE", "file:projects.old.anon_key"),
            ("CUTOVER_PROJECTS__NEW__ANON_KEY_FILE", "file:projects.new.anon_key"),
        ] {
            assert_eq!(sets(name).as_deref(), Some(path), "{name}");
        }
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        for key in KEYS {
            let name = format!("CUTOVER_{}", key.name.to_ascii_uppercase().replace('.', "__"));
            assert_eq!(sets(&name).as_deref(), Some(key.name));
            assert_eq!(sets(&preferred_name(key.name)).as_deref(), Some(key.name));
        }
    }

    #[test]
    fn strangers_are_ours_only_by_their_prefix() {
        for ignored in [
            "PATH",
            "SUPABASE_URL",
            "CUTOVER_ADMIN_URL",
            "CUTOVER_SERVICE_HOST",
            "CUTOVER_SERVICE_PORT_HTTP",
            "CUTOVER_PORT",
            "CUTOVER_PORT_8000_TCP_ADDR",
            "CUTOVER_ADMIN_PORT_8001_TCP",
            "CUTOVER_ADMIN_SERVICE_HOST",
        ] {
            assert!(matches!(meaning(ignored), Meaning::Ignored), "{ignored}");
        }
        let Meaning::Unknown { nearest } = meaning("CUTOVER_ROLLOUT__PERCENTGE") else {
            panic!("unknown")
        };
        assert_eq!(nearest, Some("rollout.percentage"));
        // A file only for secrets.
        assert!(matches!(meaning("CUTOVER_ROLLOUT__SALT_FILE"), Meaning::Unknown { .. }));
    }
}
