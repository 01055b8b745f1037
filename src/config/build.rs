//! From typed values to the snapshot and the start-up settings. What single values can't show is checked here: what
//! two keys say together.

use std::io;
use std::path::Path;

use http::HeaderValue;
use http::uri::Authority;

use super::checks;
use super::fault::Fault;
use super::kubernetes;
use super::merged::Merged;
use super::project::Url;
use super::startup::{Log, Startup, TlsListener};
use super::telemetry;
use super::tokens as exchange;
use super::value::Typed;
use crate::counted::Slots;
use crate::decide::bucket::Hash;
use crate::decide::{self, Anonymous, Owner, Owners};
use crate::identify::keyring::{Keyring, ProjectKeys, SentKey, UnknownKeys};
use crate::rewrite::schema::SchemaMap;
use crate::rewrite::storage::buckets::BucketMap;
use crate::rewrite::{self, CrossSchemaEmbeds, Unmapped, auth, functions, storage};
use crate::route::Route;
use crate::secret::Secret;
use crate::side::{Pair, Side};
use crate::snapshot::Snapshot;
use crate::telemetry as exported;
use crate::trace::Sampler;
use crate::{accept, forward, identify, realtime, restore, tokens};

/// Reads the text of a file whose path is a setting.
pub(crate) type ReadFile<'a> = &'a mut dyn FnMut(&Path) -> io::Result<String>;

/// Checked settings, ready to use.
pub(crate) struct Built {
    /// With epoch 0: its number is given when it is swapped in.
    pub(crate) snapshot: Snapshot,
    pub(crate) startup: Startup,
    pub(crate) warnings: Vec<String>,
}

/// Builds everything, or adds to the faults.
pub(crate) fn build(
    merged: &Merged,
    directory: &Path,
    read: ReadFile<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Built> {
    let ca = Pair::from_fn(|side| checks::ca(merged, side, read, faults));
    checks::all(merged, faults);
    let keyring = checks::keyring(merged, faults);
    let map = checks::schema_map(merged, faults);
    let buckets = checks::bucket_map(merged, faults);
    let functions = checks::functions(merged, faults);
    let projects = checks::projects(merged, faults);
    let telemetry = telemetry::settings(merged, read, faults);
    let startup = startup(merged, directory, telemetry, faults)?;
    let projects = projects?;
    let tokens = exchange::settings(merged, &projects, faults);
    let (keyring, map, buckets) = (keyring?, map?, buckets?);
    let (functions, tokens) = (functions?, tokens?);
    let snapshot = snapshot(
        merged,
        keyring,
        tokens,
        map,
        buckets,
        functions,
        Pair::from_fn(|side| project(merged, &projects, &ca, side)),
    );
    Some(Built { snapshot, startup, warnings: checks::warnings(merged) })
}

fn snapshot(
    merged: &Merged,
    keyring: Keyring,
    tokens: tokens::Settings,
    map: SchemaMap,
    buckets: BucketMap,
    functions: functions::Settings,
    projects: Pair<forward::Project>,
) -> Snapshot {
    Snapshot {
        epoch: 0,
        accept: accept::Settings {
            debug_headers: merged.truth("debug_headers"),
            trusted_proxies: match merged.value("trusted_proxies") {
                Typed::Networks(networks) => networks.clone(),
                _ => Vec::new(),
            },
            limits: limits(merged),
        },
        identify: identify(merged),
        keyring,
        tokens,
        decide: decide(merged),
        rewrite: rewrite::Settings {
            map,
            unmapped: match merged.text("schema.unmapped") {
                "refuse" => Unmapped::Refuse,
                _ => Unmapped::Pass,
            },
            compat: Some(merged.text("schema.compat")).filter(|s| !s.is_empty()).map(str::to_owned),
            cross_schema_embeds: match merged.text("schema.cross_schema_embeds") {
                "refuse" => CrossSchemaEmbeds::Refuse,
                "pass" => CrossSchemaEmbeds::Pass,
                _ => CrossSchemaEmbeds::Compat,
            },
            auth: Pair::from_fn(|side| vouching(merged, side)),
            functions,
            storage: storage(merged, buckets),
        },
        // Given when it is swapped in, as the epoch is.
        counted: Slots::default(),
        sampler: Sampler::new(merged.share("telemetry.sample").hundredths()),
        realtime: realtime(merged),
        forward: forward(merged, projects),
        restore: restore::Settings {
            cors: restore::Cors {
                origins: merged.texts("cors.origins").to_vec(),
                credentials: merged.truth("cors.credentials"),
                max_age: merged.duration("cors.max_age"),
            },
            error_body_bytes: merged.size("limits.error_body_bytes"),
        },
    }
}

/// What a hosted project needs to see to believe in a client's address, where that is asked for.
pub(crate) fn vouching(merged: &Merged, side: Side) -> Option<auth::Vouching> {
    if merged.text("auth.client_address") != "sb-forwarded-for" {
        return None;
    }
    let key = |name: &str, fits: fn(&str) -> bool| {
        let key = format!("projects.{side}.{name}");
        merged.secrets(&key).iter().find(|key| fits(key.expose())).and_then(SentKey::of)
    };
    Some(auth::Vouching {
        secret: key("service_role_key", |key| key.starts_with("sb_secret_"))?,
        anon: key("anon_key", |key| key.split('.').count() == 3)?,
    })
}

fn storage(merged: &Merged, map: BucketMap) -> storage::Settings {
    storage::Settings {
        map,
        owners: merged.owners("storage.owners"),
        owner: match owner(merged, Route::Storage) {
            Owner::Side(side) => Some(side),
            Owner::Rollout => None,
        },
        fallback: merged.truth("storage.fallback"),
        s3: Side::parse(merged.text("storage.s3")),
        mark_keys: mark_keys(merged),
        body_bytes: merged.size("limits.storage_body_bytes"),
        bodies_bytes: merged.size("limits.storage_bodies_bytes"),
    }
}

/// The keys of marks. Without any of their own: every secret that all replicas have anyway, and without these the public keys, with
/// which anybody could make a mark; a made-up mark only chooses the side that then refuses it.
fn mark_keys(merged: &Merged) -> Vec<Secret> {
    let own = merged.secrets("storage.mark_key");
    if !own.is_empty() {
        return own.to_vec();
    }
    let of = |names: &[&str]| -> Vec<Secret> {
        names
            .iter()
            .flat_map(|name| Side::ALL.map(|side| format!("projects.{side}.{name}")))
            .flat_map(|key| merged.secrets(&key).to_vec())
            .collect()
    };
    let secrets = of(&["service_role_key", "jwt_secret", "signing_key"]);
    if secrets.is_empty() { of(&["anon_key"]) } else { secrets }
}

fn realtime(merged: &Merged) -> realtime::Settings {
    realtime::Settings {
        // Where one side serves realtime for everybody, the rooms are there as well.
        rooms: match owner(merged, Route::Realtime) {
            Owner::Side(side) => side,
            Owner::Rollout => Side::parse(merged.text("realtime.rooms")).unwrap_or(Side::Old),
        },
        identify_timeout: merged.duration("realtime.identify_timeout"),
        send_timeout: merged.duration("realtime.send_timeout"),
        channels: merged.size("realtime.channels"),
        bindings: merged.size("realtime.bindings"),
        join_bytes: merged.size("realtime.join_bytes"),
    }
}

fn limits(merged: &Merged) -> accept::Limits {
    let number = |key| u32::try_from(merged.integer(key)).unwrap_or(u32::MAX);
    accept::Limits {
        connections: merged.size("limits.connections"),
        connections_per_address: merged.integer("limits.connections_per_address"),
        pace: accept::addresses::Pace {
            per_second: merged.integer("limits.requests_per_address"),
            burst: merged.integer("limits.burst_per_address"),
        },
        header_bytes: merged.size("limits.header_bytes"),
        body_bytes: merged.integer("limits.body_bytes"),
        frame_bytes: merged.integer("limits.frame_bytes"),
        header_timeout: merged.duration("limits.header_timeout"),
        body_idle_timeout: merged.duration("limits.body_idle_timeout"),
        idle_timeout: merged.duration("limits.idle_timeout"),
        send_timeout: merged.duration("limits.send_timeout"),
        http2_streams: number("limits.http2_streams"),
        http2_resets: number("limits.http2_resets"),
        http2_frames: number("limits.http2_frames"),
    }
}

fn identify(merged: &Merged) -> identify::Settings {
    identify::Settings {
        sources: match merged.value("identity.sources") {
            Typed::Sources(sources) => sources.clone(),
            _ => Vec::new(),
        },
        user_header: match merged.value("identity.user_header") {
            Typed::Header(name) => name.clone(),
            _ => http::HeaderName::from_static("x-user-id"),
        },
        cache_entries: merged.size("identity.cache_entries"),
    }
}

fn decide(merged: &Merged) -> decide::Settings {
    let mut pins = foldhash::HashMap::default();
    for side in Side::ALL {
        let keys = merged.texts(&format!("rollout.pins.{side}"));
        pins.extend(keys.iter().map(|key| (key.clone(), side)));
    }
    let rules = match merged.value("rollout.rules") {
        Typed::Rules(rules) => rules.clone(),
        _ => Vec::new(),
    };
    decide::Settings {
        percentage: merged.percentage(),
        force: merged.force(),
        salt: merged.text("rollout.salt").to_owned(),
        hash: if merged.text("rollout.hash") == "md5" { Hash::Md5 } else { Hash::Sha256 },
        service_role: Side::parse(merged.text("rollout.service_role")).unwrap_or(Side::Old),
        anonymous: match merged.text("rollout.anonymous") {
            "random" => Anonymous::Random,
            "old" => Anonymous::Old,
            "new" => Anonymous::New,
            _ => Anonymous::Sticky,
        },
        pins,
        wanted: decide::wanted_claims(&rules),
        rules,
        domains: match merged.value("rollout.domains") {
            Typed::Caps(caps) => caps.iter().map(|(schema, cap)| (schema.clone(), *cap)).collect(),
            _ => foldhash::HashMap::default(),
        },
        override_token: merged.secrets("rollout.override_token").first().cloned(),
        owners: Owners::from_fn(|route| owner(merged, route)),
    }
}

fn owner(merged: &Merged, route: Route) -> Owner {
    let word = merged.text(&format!("routes.{route}"));
    Side::parse(word).map_or(Owner::Rollout, Owner::Side)
}

fn forward(merged: &Merged, projects: Pair<forward::Project>) -> forward::Settings {
    forward::Settings {
        projects,
        connect_timeout: merged.duration("upstream.connect_timeout"),
        timeout: merged.duration("upstream.timeout"),
        functions_timeout: merged.duration("upstream.functions_timeout"),
        idle_timeout: merged.duration("upstream.idle_timeout"),
        idle_connections: merged.size("upstream.idle_connections"),
        connection_lifetime: merged.duration("upstream.connection_lifetime"),
        on_new_unavailable: match merged.text("rollout.on_new_unavailable") {
            "old_for_reads" => forward::OnNewUnavailable::OldForReads,
            _ => forward::OnNewUnavailable::Fail,
        },
    }
}

fn project(
    merged: &Merged,
    urls: &Pair<Url>,
    ca: &Pair<Option<String>>,
    side: Side,
) -> forward::Project {
    let url = &urls[side];
    let host = merged.text(&format!("projects.{side}.host"));
    let authority: Authority = if host.is_empty() { None } else { host.parse().ok() }
        .unwrap_or_else(|| url.authority.clone());
    forward::Project {
        tls: url.tls,
        dial_host: url.host.clone(),
        dial_port: url.port,
        // An authority is visible ASCII, so that it always is a header value too.
        host_header: HeaderValue::from_str(authority.as_str())
            .unwrap_or_else(|_| HeaderValue::from_static("")),
        authority,
        path_prefix: url.prefix.clone(),
        ca_pem: ca[side].clone(),
    }
}

fn startup(
    merged: &Merged,
    directory: &Path,
    telemetry: Option<exported::Settings>,
    faults: &mut Vec<Fault>,
) -> Option<Startup> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let path = |key| directory.join(merged.text(key));
    let (kubernetes, peers) = kubernetes::read(merged, directory, faults);
    Some(Startup {
        listen: merged.address("listen")?,
        workers: match merged.size("workers") {
            0 => cores(),
            workers => workers,
        },
        tls: merged.address("tls.listen").map(|listen| TlsListener {
            listen,
            cert: path("tls.cert"),
            key: path("tls.key"),
        }),
        admin: merged.address("admin.listen")?,
        admin_token: merged.secrets("admin.token").first().cloned(),
        drain_timeout: merged.duration("drain_timeout"),
        realtime_drain: merged.duration("realtime.drain"),
        counted_names: merged.size("limits.counted_names"),
        telemetry,
        log: Log {
            json: merged.text("log.format") == "json",
            level: merged.text("log.level").to_owned(),
            access: merged.truth("log.access"),
        },
        kubernetes,
        peers,
    })
}

/// Both projects' keys as the keyring wants them.
pub(crate) fn keys(merged: &Merged) -> (Pair<ProjectKeys>, UnknownKeys) {
    let keys = Pair::from_fn(|side| ProjectKeys {
        anon: merged.secrets(&format!("projects.{side}.anon_key")).to_vec(),
        service: merged.secrets(&format!("projects.{side}.service_role_key")).to_vec(),
    });
    let unknown = match merged.text("keys.unknown") {
        "pass" => UnknownKeys::Pass,
        _ => UnknownKeys::Refuse,
    };
    (keys, unknown)
}
