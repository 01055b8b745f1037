//! Every key that Cutover knows, with its kind, range and default: the one table that the parser, the defaults,
//! the suggestions, `config.toml` and `docs/configuration.md` are checked against.

use std::fmt::Write as _;

/// What a key accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within a range, both ends included.
    Integer { min: u64, max: u64 },
    /// `"500ms"`, `"30s"`, `"10m"`, `"1h"`, or whole seconds; the range is in milliseconds.
    Duration { min: u64, max: u64 },
    /// 0 to 100, at most two decimals.
    Percentage,
    /// One of a few words; some more are known but refused, each with the reason.
    Choice { allowed: &'static [&'static str], refused: &'static [(&'static str, &'static str)] },
    /// Text without control characters.
    Text { min: usize, max: usize },
    /// A path; relative ones start at the directory of the configuration file.
    Path,
    /// `address:port`.
    Address,
    /// One secret. Those that become header values accept visible ASCII only.
    Secret { header: bool, min: usize },
    /// API keys: one, or a list.
    Secrets,
    /// A project's base URL.
    Url,
    /// `host` or `host:port`.
    Host,
    /// A name in PostgreSQL, or nothing.
    Schema { empty: bool },
    /// The name of a header.
    Header,
    /// A tracing filter.
    Filter,
    /// Targeting keys.
    Pins,
    /// Networks or addresses.
    Networks,
    /// Where identities come from.
    IdentitySources,
    /// Origins as browsers send them.
    Origins,
    /// Schema = percentage.
    Caps,
    /// `{ claim, equals, side }`.
    Rules,
    /// Old name = `"schema"`, `"schema.name"` or `{ to, canonical }`.
    Entries,
    /// Old bucket = `"bucket"` or `"bucket/folder"`.
    Folders,
    /// Old function = `"name"` or `"name/more"`.
    Paths,
    /// Name = side.
    Owners,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted.
    pub(crate) name: &'static str,
    /// As TOML; `None`: there is no default and the key may be absent.
    pub(crate) default: Option<&'static str>,
    pub(crate) kind: Kind,
    /// Whether a change waits for a restart.
    pub(crate) restart: bool,
}

impl Key {
    const fn live(name: &'static str, default: &'static str, kind: Kind) -> Self {
        Self { name, default: Some(default), kind, restart: false }
    }

    const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, default: None, kind, restart: false }
    }

    const fn at_start(name: &'static str, default: &'static str, kind: Kind) -> Self {
        Self { name, default: Some(default), kind, restart: true }
    }

    /// Whether the value must never be shown.
    pub(crate) const fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret { .. } | Kind::Secrets)
    }

    /// Whether the key is a table whose own keys the operator chooses.
    pub(crate) const fn is_free_table(&self) -> bool {
        matches!(self.kind, Kind::Caps | Kind::Entries | Kind::Folders | Kind::Paths | Kind::Owners)
    }

    /// Whether a value is more than one word, so that a variable may hold it as TOML or JSON.
    pub(crate) const fn is_structured(&self) -> bool {
        matches!(
            self.kind,
            Kind::Secrets
                | Kind::Pins
                | Kind::Networks
                | Kind::IdentitySources
                | Kind::Origins
                | Kind::Caps
                | Kind::Rules
                | Kind::Entries
                | Kind::Folders
                | Kind::Paths
                | Kind::Owners
        )
    }

    /// The key with this dotted name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The key that a path belongs to: itself, or the free table above it.
    pub(crate) fn owning(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| {
            key.name == name
                || (key.is_free_table()
                    && name.strip_prefix(key.name).is_some_and(|rest| rest.starts_with('.')))
        })
    }

    /// Whether `name` is a section: some key lies below it.
    pub(crate) fn is_section(name: &str) -> bool {
        KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The known key nearest to an unknown one: the same word in another section, or a likely slip.
    pub(crate) fn nearest(unknown: &str) -> Option<&'static str> {
        let word = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let moved = KEYS.iter().find(|key| word(key.name) == word(unknown));
        let slip = KEYS
            .iter()
            .map(|key| (strsim::normalized_damerau_levenshtein(key.name, unknown), key))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score >= 0.7)
            .map(|(_, key)| key);
        slip.or(moved).map(|key| key.name)
    }
}

/// A duration in the largest unit that says it exactly.
pub(crate) fn duration_text(ms: u64) -> String {
    let mut text = String::new();
    let (number, unit) = match ms {
        ms if ms != 0 && ms.is_multiple_of(3_600_000) => (ms / 3_600_000, "h"),
        ms if ms != 0 && ms.is_multiple_of(60_000) => (ms / 60_000, "m"),
        ms if ms.is_multiple_of(1_000) => (ms / 1_000, "s"),
        ms => (ms, "ms"),
    };
    // Writing to a String can't fail.
    _ = write!(text, "{number}{unit}");
    text
}

const NEVER: &str = "\"old\" or \"new\", for ever: refresh tokens, PKCE codes and links in mails carry no user, so auth can't be split by user";

const OWNER: Kind = words(&["rollout", "old", "new"]);
const AUTH: Kind = Kind::Choice { allowed: &["old", "new"], refused: &[("rollout", NEVER)] };
const SIDE: Kind = Kind::Choice { allowed: &["old", "new"], refused: &[] };
const DAY: u64 = 86_400_000;

const fn words(allowed: &'static [&'static str]) -> Kind {
    Kind::Choice { allowed, refused: &[] }
}

/// Every key, in the order of `config.toml`.
pub(crate) static KEYS: &[Key] = &[
    Key::at_start("listen", "\"0.0.0.0:8000\"", Kind::Address),
    Key::at_start("workers", "0", Kind::Integer { min: 0, max: 1024 }),
    Key::live("debug_headers", "false", Kind::Bool),
    Key::live("trusted_proxies", "[]", Kind::Networks),
    Key::at_start("drain_timeout", "\"30s\"", Kind::Duration { min: 0, max: 3_600_000 }),
    Key { restart: true, ..Key::optional("tls.listen", Kind::Address) },
    Key { restart: true, ..Key::optional("tls.cert", Kind::Path) },
    Key { restart: true, ..Key::optional("tls.key", Kind::Path) },
    Key::at_start("admin.listen", "\"127.0.0.1:8001\"", Kind::Address),
    Key::at_start("admin.token", "\"\"", Kind::Secret { header: true, min: 1 }),
    Key::optional("projects.old.url", Kind::Url),
    Key::live("projects.old.anon_key", "\"\"", Kind::Secrets),
    Key::live("projects.old.service_role_key", "\"\"", Kind::Secrets),
    Key::live("projects.old.jwt_secret", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::optional("projects.old.jwks_url", Kind::Url),
    Key::live("projects.old.signing_key", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::live("projects.old.issuer", "\"\"", Kind::Text { min: 0, max: 2048 }),
    Key::live("projects.old.database_url", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::live("projects.old.database_ca", "\"\"", Kind::Path),
    Key::optional("projects.old.host", Kind::Host),
    Key::live("projects.old.ca", "\"\"", Kind::Path),
    Key::optional("projects.new.url", Kind::Url),
    Key::live("projects.new.anon_key", "\"\"", Kind::Secrets),
    Key::live("projects.new.service_role_key", "\"\"", Kind::Secrets),
    Key::live("projects.new.jwt_secret", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::optional("projects.new.jwks_url", Kind::Url),
    Key::live("projects.new.signing_key", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::live("projects.new.issuer", "\"\"", Kind::Text { min: 0, max: 2048 }),
    Key::live("projects.new.database_url", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::live("projects.new.database_ca", "\"\"", Kind::Path),
    Key::optional("projects.new.host", Kind::Host),
    Key::live("projects.new.ca", "\"\"", Kind::Path),
    Key::live("identity.sources", "[\"jwt\", \"header:x-api-key\"]", Kind::IdentitySources),
    Key::live("identity.user_header", "\"x-user-id\"", Kind::Header),
    Key::live("identity.cache_entries", "10000", Kind::Integer { min: 0, max: 1_000_000 }),
    Key::live("keys.unknown", "\"refuse\"", words(&["refuse", "pass"])),
    Key::live("tokens.mode", "\"shared\"", words(&["shared", "exchange"])),
    Key::live("tokens.cache_entries", "10000", Kind::Integer { min: 0, max: 1_000_000 }),
    Key::live("tokens.jwks_refresh", "\"10m\"", Kind::Duration { min: 1_000, max: DAY }),
    Key::live("tokens.jwks_cooldown", "\"30s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live("tokens.jwks_wait", "\"2s\"", Kind::Duration { min: 0, max: 60_000 }),
    Key::live("rollout.percentage", "0", Kind::Percentage),
    Key::live("rollout.force", "\"\"", words(&["", "old", "new"])),
    Key::live("rollout.salt", "\"onasis-core-v2\"", Kind::Text { min: 1, max: 256 }),
    Key::live("rollout.hash", "\"sha256\"", words(&["sha256", "md5"])),
    Key::live("rollout.anonymous", "\"sticky\"", words(&["sticky", "random", "old", "new"])),
    Key::live("rollout.service_role", "\"old\"", SIDE),
    Key::live("rollout.pins.old", "[]", Kind::Pins),
    Key::live("rollout.pins.new", "[]", Kind::Pins),
    Key::live("rollout.rules", "[]", Kind::Rules),
    Key::live("rollout.domains", "{}", Kind::Caps),
    Key::live("rollout.audit_file", "\"cutover-audit.jsonl\"", Kind::Path),
    Key::live("rollout.env_file", "\"\"", Kind::Path),
    Key::live("rollout.watch_dir", "\"\"", Kind::Path),
    Key::live("rollout.allow_reshuffle", "false", Kind::Bool),
    Key::live("rollout.override_token", "\"\"", Kind::Secret { header: true, min: 16 }),
    Key::live("rollout.on_new_unavailable", "\"fail\"", words(&["fail", "old_for_reads"])),
    Key::at_start("kubernetes.configmap", "\"\"", Kind::Text { min: 0, max: 317 }),
    Key { restart: true, ..Key::optional("kubernetes.api_url", Kind::Url) },
    Key::at_start("kubernetes.token_file", "\"\"", Kind::Path),
    Key::at_start("kubernetes.ca", "\"\"", Kind::Path),
    Key::at_start(
        "kubernetes.watch_timeout",
        "\"25s\"",
        Kind::Duration { min: 1_000, max: 290_000 },
    ),
    Key::at_start("kubernetes.resync", "\"5m\"", Kind::Duration { min: 1_000, max: DAY }),
    Key::at_start("kubernetes.write_timeout", "\"5s\"", Kind::Duration { min: 100, max: 10_000 }),
    Key::at_start("kubernetes.start_timeout", "\"3s\"", Kind::Duration { min: 0, max: 60_000 }),
    Key::at_start("kubernetes.peers", "\"\"", Kind::Text { min: 0, max: 2048 }),
    Key::at_start("kubernetes.peers_timeout", "\"2s\"", Kind::Duration { min: 100, max: 10_000 }),
    Key::live("routes.rest", "\"rollout\"", OWNER),
    Key::live("routes.auth", "\"old\"", AUTH),
    Key::live("routes.storage", "\"rollout\"", OWNER),
    Key::live("routes.functions", "\"rollout\"", OWNER),
    Key::live("routes.realtime", "\"rollout\"", OWNER),
    Key::live("routes.graphql", "\"old\"", OWNER),
    Key::live("schema.legacy", "\"public\"", Kind::Schema { empty: false }),
    Key::live("schema.unmapped", "\"pass\"", words(&["pass", "refuse"])),
    Key::live("schema.compat", "\"public\"", Kind::Schema { empty: true }),
    Key::live("schema.cross_schema_embeds", "\"compat\"", words(&["compat", "refuse", "pass"])),
    Key::live("schema.tables", "{}", Kind::Entries),
    Key::live("schema.functions", "{}", Kind::Entries),
    Key::live(
        "auth.client_address",
        "\"x-forwarded-for\"",
        words(&["x-forwarded-for", "sb-forwarded-for"]),
    ),
    Key::live("storage.fallback", "true", Kind::Bool),
    Key::live("storage.s3", "\"refuse\"", words(&["refuse", "old", "new"])),
    Key::live("storage.mark_key", "\"\"", Kind::Secrets),
    Key::live("storage.buckets", "{}", Kind::Folders),
    Key::live("storage.owners", "{}", Kind::Owners),
    Key::live("functions.names", "{}", Kind::Paths),
    Key::live("functions.owners", "{}", Kind::Owners),
    Key::live("cors.origins", "[]", Kind::Origins),
    Key::live("cors.credentials", "false", Kind::Bool),
    Key::live("cors.max_age", "\"10m\"", Kind::Duration { min: 0, max: DAY }),
    Key::live("limits.connections", "10000", Kind::Integer { min: 1, max: 1_000_000 }),
    Key::live("limits.connections_per_address", "0", Kind::Integer { min: 0, max: 65_535 }),
    Key::live("limits.requests_per_address", "0", Kind::Integer { min: 0, max: 10_000 }),
    Key::live("limits.burst_per_address", "0", Kind::Integer { min: 0, max: 1_000_000 }),
    Key::live("limits.header_bytes", "65536", Kind::Integer { min: 8_192, max: 1_048_576 }),
    Key::live("limits.body_bytes", "0", Kind::Integer { min: 0, max: 1 << 50 }),
    Key::live("limits.frame_bytes", "5242880", Kind::Integer { min: 1_024, max: 1 << 30 }),
    Key::live("limits.header_timeout", "\"10s\"", Kind::Duration { min: 100, max: 600_000 }),
    Key::live("limits.body_idle_timeout", "\"30s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live("limits.idle_timeout", "\"75s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live("limits.send_timeout", "\"60s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live("limits.http2_streams", "250", Kind::Integer { min: 1, max: 10_000 }),
    Key::live("limits.http2_resets", "500", Kind::Integer { min: 1, max: 1_000_000 }),
    Key::live("limits.http2_frames", "1000", Kind::Integer { min: 10, max: 1_000_000 }),
    Key::live(
        "limits.storage_body_bytes",
        "1048576",
        Kind::Integer { min: 1_024, max: 16_777_216 },
    ),
    Key::live(
        "limits.storage_bodies_bytes",
        "67108864",
        Kind::Integer { min: 1_024, max: 17_179_869_184 },
    ),
    Key::at_start("limits.counted_names", "1000", Kind::Integer { min: 0, max: 100_000 }),
    Key::live("limits.error_body_bytes", "65536", Kind::Integer { min: 1_024, max: 16_777_216 }),
    Key::live("upstream.connect_timeout", "\"5s\"", Kind::Duration { min: 10, max: 120_000 }),
    Key::live("upstream.timeout", "\"60s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live(
        "upstream.functions_timeout",
        "\"160s\"",
        Kind::Duration { min: 100, max: 3_600_000 },
    ),
    Key::live("upstream.idle_timeout", "\"50s\"", Kind::Duration { min: 100, max: 3_600_000 }),
    Key::live("upstream.idle_connections", "256", Kind::Integer { min: 0, max: 65_536 }),
    Key::live(
        "upstream.connection_lifetime",
        "\"5m\"",
        Kind::Duration { min: 100, max: 86_400_000 },
    ),
    Key::live("realtime.rooms", "\"old\"", SIDE),
    Key::live("realtime.identify_timeout", "\"2s\"", Kind::Duration { min: 10, max: 60_000 }),
    Key::live("realtime.send_timeout", "\"10s\"", Kind::Duration { min: 100, max: 600_000 }),
    Key::live("realtime.channels", "100", Kind::Integer { min: 1, max: 10_000 }),
    Key::live("realtime.bindings", "100", Kind::Integer { min: 1, max: 10_000 }),
    Key::live("realtime.join_bytes", "16384", Kind::Integer { min: 1_024, max: 1_048_576 }),
    Key::at_start("realtime.drain", "\"10s\"", Kind::Duration { min: 0, max: 600_000 }),
    Key::at_start("log.format", "\"human\"", words(&["human", "json"])),
    Key::at_start("log.level", "\"info\"", Kind::Filter),
    Key::at_start("log.access", "true", Kind::Bool),
    Key::at_start("telemetry.endpoint", "\"\"", Kind::Url),
    Key::at_start("telemetry.protocol", "\"grpc\"", words(&["grpc", "http/protobuf"])),
    Key::at_start("telemetry.headers", "\"\"", Kind::Secret { header: false, min: 1 }),
    Key::at_start("telemetry.ca", "\"\"", Kind::Path),
    Key::at_start("telemetry.timeout", "\"10s\"", Kind::Duration { min: 100, max: 120_000 }),
    Key::at_start("telemetry.service_name", "\"cutover\"", Kind::Text { min: 1, max: 256 }),
    Key::at_start("telemetry.traces", "true", Kind::Bool),
    Key::live("telemetry.sample", "10", Kind::Percentage),
    Key::at_start("telemetry.queue", "4096", Kind::Integer { min: 1, max: 1_000_000 }),
    Key::at_start("telemetry.metrics", "true", Kind::Bool),
    Key::at_start(
        "telemetry.metrics_interval",
        "\"60s\"",
        Kind::Duration { min: 100, max: 3_600_000 },
    ),
];
