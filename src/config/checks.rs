//! What two settings say together: faults and warnings that no single value can show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::build::{self, ReadFile};
use super::fault::{Fault, Faults};
use super::files;
use super::layers::Place;
use super::merged::Merged;
use super::project::{self, Url};
use super::startup::Startup;
use super::tokens;
use super::value::Typed;
use crate::identify::keyring::{Keyring, Role};
use crate::rewrite::functions;
use crate::rewrite::schema::SchemaMap;
use crate::rewrite::storage::buckets::BucketMap;
use crate::side::{Pair, Side};

/// Every check that yields nothing but faults.
pub(crate) fn all(merged: &Merged, faults: &mut Vec<Fault>) {
    hash(merged, faults);
    pins(merged, faults);
    domains(merged, faults);
    tls(merged, faults);
    listeners(merged, faults);
    roles(merged, faults);
    databases(merged, faults);
    tokens::check(merged, faults);
    if merged.truth("cors.credentials") && merged.texts("cors.origins").is_empty() {
        let allowed = "listed cors.origins: browsers refuse credentials together with any origin";
        let (key, found) = ("cors.credentials", "true while cors.origins is empty (any)");
        faults.push(Fault::new(merged.source(key), key, found, allowed));
    }
    if merged.text("schema.cross_schema_embeds") == "compat"
        && merged.text("schema.compat").is_empty()
    {
        let allowed = "\"refuse\" or \"pass\" while schema.compat is empty, or a schema.compat";
        // One of the two may be a default: what is to be changed stands where compat was emptied.
        let source = merged.source("schema.compat");
        let key = "schema.cross_schema_embeds";
        faults.push(Fault::new(source, key, "\"compat\"", allowed));
    }
    client_address(merged, faults);
    let loopback = merged.address("admin.listen").is_none_or(|address| address.ip().is_loopback());
    if !loopback && merged.secrets("admin.token").is_empty() {
        let allowed = "a token (CUTOVER_ADMIN_TOKEN): admin.listen is not on loopback";
        faults.push(Fault::new(merged.source("admin.listen"), "admin.token", "nothing", allowed));
    }
}

/// A secret key alone would be `service_role`, so that both keys have to be there. The other side's are needed when auth moves to it.
fn client_address(merged: &Merged, faults: &mut Vec<Fault>) {
    let key = "auth.client_address";
    let owner = merged.auth_owner();
    if merged.text(key) == "sb-forwarded-for" && build::vouching(merged, owner).is_none() {
        let allowed = format!(
            "an sb_secret_… key in projects.{owner}.service_role_key and the legacy anon key (a JWT) in projects.{owner}.anon_key"
        );
        faults.push(Fault::new(merged.source(key), key, "\"sb-forwarded-for\"", allowed));
    }
}

/// Adds a fault unless the key has one already: a value that could not be read stands here as its default, and what
/// that default leads to is no news.
fn push(faults: &mut Vec<Fault>, fault: Fault) {
    if !faults.iter().any(|known| known.key == fault.key) {
        faults.push(fault);
    }
}

fn hash(merged: &Merged, faults: &mut Vec<Fault>) {
    if merged.text("rollout.hash") != "md5" {
        return;
    }
    let allowed = "a whole percentage: rollout.hash is \"md5\"";
    if !merged.percentage().is_whole() {
        let (key, found) = ("rollout.percentage", merged.percentage().to_string());
        push(faults, Fault::new(merged.source(key), key, found, allowed));
    }
    if let Typed::Caps(caps) = merged.value("rollout.domains") {
        for (schema, cap) in caps.iter().filter(|(_, cap)| !cap.is_whole()) {
            let key = format!("rollout.domains.{schema}");
            push(faults, Fault::new(merged.source(&key), key, cap.to_string(), allowed));
        }
    }
}

fn pins(merged: &Merged, faults: &mut Vec<Fault>) {
    let (old, new) = ("rollout.pins.old", "rollout.pins.new");
    let at: HashMap<_, _> = merged.texts(old).iter().enumerate().map(|(i, key)| (key, i)).collect();
    for (i, key) in merged.texts(new).iter().enumerate() {
        // Named by position: a pinned key may be an API key.
        if let Some(j) = at.get(key) {
            let found = format!("the same key as {old}[{j}]");
            faults.push(Fault::new(
                merged.source(new),
                format!("{new}[{i}]"),
                found,
                "each key on one side",
            ));
        }
    }
}

fn domains(merged: &Merged, faults: &mut Vec<Fault>) {
    let Typed::Caps(caps) = merged.value("rollout.domains") else { return };
    let known: BTreeSet<&str> = ["schema.tables", "schema.functions"]
        .iter()
        .flat_map(|key| merged.entries(key))
        .map(|entry| entry.schema.as_str())
        .collect();
    for schema in caps.keys().filter(|schema| !known.contains(schema.as_str())) {
        let key = format!("rollout.domains.{schema}");
        let names: Vec<_> = known.iter().copied().collect();
        let names =
            if names.is_empty() { "none: the map is empty".to_owned() } else { names.join(", ") };
        let allowed = format!("a schema of the map: {names}");
        push(
            faults,
            Fault::new(merged.source(&key), key, "a schema that the map does not name", allowed),
        );
    }
}

fn tls(merged: &Merged, faults: &mut Vec<Fault>) {
    let keys = ["tls.listen", "tls.cert", "tls.key"];
    let given = |key: &&str| match merged.value(key) {
        Typed::Absent => false,
        Typed::Text(text) => !text.is_empty(),
        _ => true,
    };
    if let Some(present) = keys.iter().find(|key| given(key)) {
        for key in keys.iter().filter(|key| !given(key)) {
            let fault = Fault::new(
                merged.source(present),
                *key,
                "nothing",
                "all of tls.listen, tls.cert and tls.key",
            );
            push(faults, fault);
        }
    }
}

/// Whether the TLS files can be read: asked at a start and by `check` only. A certificate that is just being replaced
/// must not stand in the way of a change of the percentage.
pub(crate) fn tls_files(merged: &Merged, startup: &Startup) -> Result<(), Faults> {
    let Some(tls) = &startup.tls else { return Ok(()) };
    let mut faults = Vec::new();
    for (key, path) in [("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
        if let Err(error) = files::read(path) {
            let found = format!("{:?}: {error}", merged.text(key));
            faults.push(Fault::new(merged.source(key), key, found, "a readable PEM file"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

fn listeners(merged: &Merged, faults: &mut Vec<Fault>) {
    let keys = ["listen", "tls.listen", "admin.listen"];
    let clash = |a: SocketAddr, b: SocketAddr| {
        let same = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        // Port 0 asks the system for a free one.
        a.port() != 0 && a.port() == b.port() && same
    };
    for (i, key) in keys.iter().enumerate() {
        for earlier in &keys[..i] {
            if let (Some(a), Some(b)) = (merged.address(earlier), merged.address(key))
                && clash(a, b)
            {
                let found = format!("{b}, and {earlier} is {a}");
                push(
                    faults,
                    Fault::new(
                        merged.source(key),
                        *key,
                        found,
                        "a port of its own for each listener",
                    ),
                );
            }
        }
    }
}

/// A key that says of itself that it has another role than its place would promote whoever sends the lesser one.
fn roles(merged: &Merged, faults: &mut Vec<Fault>) {
    for side in Side::ALL {
        for (name, place, other) in [
            ("anon_key", Role::Anon, "a service role key (not shown)"),
            ("service_role_key", Role::Service, "an anon key (not shown)"),
        ] {
            let key = format!("projects.{side}.{name}");
            for (i, secret) in merged.secrets(&key).iter().enumerate() {
                if role_in(secret.expose()).is_some_and(|role| role != place) {
                    let allowed =
                        "each key under its own role: otherwise the swap would promote its users";
                    faults.push(Fault::new(
                        merged.source(&key),
                        format!("{key}[{i}]"),
                        other,
                        allowed,
                    ));
                }
            }
        }
    }
}

/// A database's URL is read when a command needs it; that it is none shows before.
fn databases(merged: &Merged, faults: &mut Vec<Fault>) {
    for side in Side::ALL {
        let key = format!("projects.{side}.database_url");
        let is_url = |text: &str| {
            ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
        };
        if merged.secrets(&key).iter().any(|url| !is_url(url.expose())) {
            let allowed = "postgres://user:password@host:port/database";
            faults.push(Fault::new(
                merged.source(&key),
                key,
                "something else (not shown)",
                allowed,
            ));
        }
    }
}

/// The role that a key states: by its prefix, or by the `role` claim of a legacy JWT.
fn role_in(key: &str) -> Option<Role> {
    if key.starts_with("sb_publishable_") {
        return Some(Role::Anon);
    }
    if key.starts_with("sb_secret_") {
        return Some(Role::Service);
    }
    let payload = URL_SAFE_NO_PAD.decode(key.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    match claims.get("role")?.as_str()? {
        "anon" => Some(Role::Anon),
        "service_role" => Some(Role::Service),
        _ => None,
    }
}

/// The PEM of a private CA, read now so that a mistake shows before a connection needs it.
pub(crate) fn ca(
    merged: &Merged,
    side: Side,
    read: ReadFile<'_>,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    pem(merged, &format!("projects.{side}.ca"), read, faults)
}

/// The certificates in the file that a key names.
pub(crate) fn pem(
    merged: &Merged,
    key: &str,
    read: ReadFile<'_>,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let path = Some(merged.text(key)).filter(|path| !path.is_empty())?;
    let found = match read(path.as_ref()) {
        Ok(pem) => {
            let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
            if certificates.peek().is_some() && certificates.all(|one| one.is_ok()) {
                return Some(pem);
            }
            format!("{path:?}, which holds no certificate")
        }
        Err(error) => format!("{path:?}: {error}"),
    };
    faults.push(Fault::new(
        merged.source(key),
        key,
        found,
        "a readable PEM file with certificates",
    ));
    None
}

pub(crate) fn keyring(merged: &Merged, faults: &mut Vec<Fault>) -> Option<Keyring> {
    let (keys, unknown) = build::keys(merged);
    Keyring::build(&keys, unknown)
        .map_err(|conflict| {
            let source = merged.source("projects.old.anon_key");
            let found = format!("{conflict} (not shown)");
            faults.push(Fault::new(source, "projects", found, "each key in one role"));
        })
        .ok()
}

pub(crate) fn schema_map(merged: &Merged, faults: &mut Vec<Fault>) -> Option<SchemaMap> {
    let (tables, functions) = (merged.entries("schema.tables"), merged.entries("schema.functions"));
    SchemaMap::build(merged.text("schema.legacy"), tables, functions)
        .map_err(|map_faults| {
            let source = merged.source("schema.tables");
            faults.extend(map_faults.into_iter().map(|fault| {
                Fault::new(&source, "schema", fault.to_string(), "a map that can be read both ways")
            }));
        })
        .ok()
}

pub(crate) fn bucket_map(merged: &Merged, faults: &mut Vec<Fault>) -> Option<BucketMap> {
    let folders = match merged.value("storage.buckets") {
        Typed::Folders(folders) => folders.clone(),
        _ => Vec::new(),
    };
    let key = "storage.buckets";
    let source = merged.source(key);
    let map = BucketMap::build(folders)
        .map_err(|map_faults| {
            let allowed = "a map that can be read both ways";
            faults.extend(
                map_faults
                    .into_iter()
                    .map(|fault| Fault::new(&source, key, fault.to_string(), allowed)),
            );
        })
        .ok()?;
    bucket_owners(merged, &map, faults);
    Some(map)
}

/// A bucket has one owner, whichever of its names says so.
fn bucket_owners(merged: &Merged, map: &BucketMap, faults: &mut Vec<Fault>) {
    let owners = merged.owners("storage.owners");
    for line in map.lines() {
        if let (Some(old), Some(new)) = (owners.get(&line.old), owners.get(&line.bucket))
            && old != new
        {
            let key = format!("storage.owners.{}", line.old);
            let found = format!("{old}, and its name on new, {}, has {new}", line.bucket);
            let source = merged.source(&key);
            push(faults, Fault::new(source, key, found, "one owner, by either name"));
        }
    }
}

pub(crate) fn functions(merged: &Merged, faults: &mut Vec<Fault>) -> Option<functions::Settings> {
    let none = BTreeMap::new();
    let names = match merged.value("functions.names") {
        Typed::Paths(names) => names,
        _ => &none,
    };
    functions::Settings::build(names, &merged.owners("functions.owners"))
        .map_err(|of_names| {
            let source = merged.source("functions.names");
            faults.extend(of_names.into_iter().map(|fault| {
                let allowed = "names that can be read both ways, one owner for each function";
                Fault::new(&source, "functions", fault.to_string(), allowed)
            }));
        })
        .ok()
}

pub(crate) fn projects(merged: &Merged, faults: &mut Vec<Fault>) -> Option<Pair<Url>> {
    let mut url = |side: Side| {
        let key = format!("projects.{side}.url");
        if let Typed::Url(url) = merged.value(&key) {
            return Some(url.clone());
        }
        let file = merged.layers.iter().find(|layer| layer.place == Place::File);
        let source = file.map_or("config.toml", |layer| layer.name.as_str());
        push(faults, Fault::new(source, key, "nothing", project::ALLOWED));
        None
    };
    let (old, new) = (url(Side::Old), url(Side::New));
    Some(Pair { old: old?, new: new? })
}

/// What is allowed and yet worth a word.
pub(crate) fn warnings(merged: &Merged) -> Vec<String> {
    let mut warnings = Vec::new();
    for key in ["rollout.percentage", "rollout.force"] {
        if merged.holder(key).place == Place::Environment {
            let source = merged.source(key);
            warnings
                .push(format!("{key} is set by {source} and can't change while the process lives"));
        }
    }
    let absent = |key: &str| merged.secrets(key).is_empty();
    for side in Side::ALL {
        if absent(&format!("projects.{side}.anon_key")) {
            let variable = format!("SUPABASE_ANON_KEY_{}", side.as_str().to_ascii_uppercase());
            warnings.push(format!(
                "projects.{side}.anon_key is not set ({variable}): no anon key can be swapped"
            ));
        }
        let service = format!("projects.{side}.service_role_key");
        let other = side.other();
        if absent(&service) && !absent(&format!("projects.{other}.service_role_key")) {
            warnings.push(format!(
                "{service} is not set, and the {other} project's is: service keys can't be swapped"
            ));
        }
        if let Typed::Url(url) = merged.value(&format!("projects.{side}.url"))
            && url.host == format!("{side}-ref.supabase.co")
        {
            warnings.push(format!(
                "projects.{side}.url is still the placeholder of the shipped config.toml"
            ));
        }
    }
    if let Typed::Folders(folders) = merged.value("storage.buckets") {
        for line in folders.iter().filter(|line| line.is_shared()) {
            if folders.iter().any(|other| other.old == line.bucket) {
                warnings.push(format!(
                    "storage.buckets: names in {0} that begin with {1}/ are read in the new dialect; no object of old's {0} may be called so",
                    line.bucket, line.prefix
                ));
            }
        }
    }
    if merged.value("projects.old.url") == merged.value("projects.new.url") {
        warnings.push("projects.old.url and projects.new.url are the same project".to_owned());
    }
    tokens::warnings(merged, &mut warnings);
    warnings
}
