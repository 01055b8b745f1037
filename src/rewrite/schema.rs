//! The schema map: written once, read both ways.
//!
//! Both directions are hash look-ups: an exact name first, then the prefix entries, longest first, one
//! look-up for each different prefix length. So a look-up costs the same for 10 and for 10,000 entries. The
//! map sits behind an [`Arc`]: a clone is one counter.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use http::HeaderValue;

use crate::counted::Kind;

/// One line of `[schema.tables]` or `[schema.functions]`, as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in the legacy schema; a `*` at its end makes it a prefix entry.
    pub old: String,
    /// The schema on new.
    pub schema: String,
    /// The name on new, when it differs. Never with a prefix entry.
    pub name: Option<String>,
    /// Marks the one of several old names for a new name that the way back uses.
    pub canonical: bool,
}

/// A map that can't be read both ways; names the entries at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapFault {
    /// Several old names lead to one new name, and not exactly one of them is canonical.
    #[error("{to} is the target of {}: mark exactly one as canonical", names.join(" and "))]
    Ambiguous {
        /// The new `schema.name`.
        to: String,
        /// The old names.
        names: Vec<String>,
    },
    /// A prefix entry can't rename.
    #[error("prefix entry {old} can only name a schema")]
    PrefixRenames {
        /// The entry.
        old: String,
    },
    /// An entry whose names can't be names: empty, a `*` elsewhere than at the end of the old name, or a
    /// schema that no header can carry.
    #[error("entry {old:?} is not a name, or leads to none")]
    Malformed {
        /// The entry.
        old: String,
    },
}

/// Old table ↔ new schema.table, and the same for functions.
#[derive(Clone, Debug, Default)]
pub struct SchemaMap(Arc<Maps>);

/// What a name stands for on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'m, 'n> {
    /// The schema on new.
    pub schema: &'m str,
    /// The name on new.
    pub name: &'n str,
    /// The entry as the operator wrote it, functions with `rpc/` before it: of bounded variety, for logs.
    pub label: &'m str,
    /// The number of the entry, as [`SchemaMap::entries`] counts.
    pub line: u32,
}

#[derive(Debug, Default)]
struct Maps {
    legacy: String,
    legacy_profile: Option<HeaderValue>,
    /// The schemas of new, sorted, each with its value for the profile header.
    domains: BTreeMap<String, Option<HeaderValue>>,
    tables: Names,
    functions: Names,
    /// The entries, as the operator wrote them.
    entries: Vec<(Kind, String)>,
}

/// One line of the map, for those who go through all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapped<'m> {
    /// The old name; of a prefix entry the prefix, without its `*`.
    pub old: &'m str,
    /// The schema on new.
    pub schema: &'m str,
    /// The name on new; `None` for a prefix entry, whose names stay as they are.
    pub name: Option<&'m str>,
    /// The number of the entry, as in [`Place`].
    pub line: u32,
}

/// One kind of names, in both directions.
#[derive(Debug, Default)]
pub struct Names {
    /// Old name → its line.
    to_new: HashMap<String, Line>,
    /// Schema → new name → the old name to use on the way back.
    to_old: HashMap<String, HashMap<String, String>>,
    /// Prefix → its line (whose name is never read).
    prefixes: HashMap<String, Line>,
    /// The different lengths of the prefixes, longest first.
    prefix_lengths: Vec<usize>,
}

#[derive(Debug)]
struct Line {
    schema: String,
    name: String,
    label: String,
    number: u32,
}

impl SchemaMap {
    /// Builds the map and its inverse; look-ups cost the same for 10 and for 10,000 entries.
    ///
    /// # Errors
    /// Every fault of the map, not only the first.
    pub fn build(
        legacy: &str,
        tables: &[Entry],
        functions: &[Entry],
    ) -> Result<Self, Vec<MapFault>> {
        let mut faults = Vec::new();
        let legacy_profile = HeaderValue::from_str(legacy).ok();
        if legacy.is_empty() || legacy_profile.is_none() {
            faults.push(MapFault::Malformed { old: legacy.to_owned() });
        }
        let maps = Maps {
            legacy: legacy.to_owned(),
            legacy_profile,
            domains: tables
                .iter()
                .chain(functions)
                .map(|e| (e.schema.clone(), HeaderValue::from_str(&e.schema).ok()))
                .collect(),
            tables: Names::build("", 0, tables, &mut faults),
            functions: Names::build("rpc/", tables.len(), functions, &mut faults),
            entries: named(Kind::Table, tables).chain(named(Kind::Function, functions)).collect(),
        };
        if faults.is_empty() { Ok(Self(Arc::new(maps))) } else { Err(faults) }
    }

    /// Every schema of new that the map names, sorted.
    #[must_use]
    pub fn domains(&self) -> Vec<&str> {
        self.0.domains.keys().map(String::as_str).collect()
    }

    /// Every entry in the operator's own words (a prefix with its `*`), tables before functions; a [`Place`] names its own by its number.
    pub fn entries(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.0.entries.iter().map(|(kind, name)| (*kind, name.as_str()))
    }

    /// The schema that was split.
    #[must_use]
    pub fn legacy(&self) -> &str {
        &self.0.legacy
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Names {
        &self.0.tables
    }

    /// The functions.
    #[must_use]
    pub fn functions(&self) -> &Names {
        &self.0.functions
    }

    /// The map's own text for a schema of new that it names.
    #[must_use]
    pub fn domain(&self, schema: &str) -> Option<&str> {
        self.0.domains.get_key_value(schema).map(|(name, _)| name.as_str())
    }

    /// The profile header's value for a schema, made ahead for those that the map names.
    #[must_use]
    pub fn profile(&self, schema: &str) -> Option<HeaderValue> {
        if schema == self.0.legacy {
            return self.0.legacy_profile.clone();
        }
        match self.0.domains.get(schema) {
            Some(Some(value)) => Some(value.clone()),
            _ => HeaderValue::from_str(schema).ok(),
        }
    }
}

impl Names {
    fn build(label: &str, first: usize, entries: &[Entry], faults: &mut Vec<MapFault>) -> Self {
        let mut names = Self::default();
        for (number, entry) in (first..).zip(entries) {
            names.add(label, number, entry, faults);
        }
        names.prefix_lengths = names.prefixes.keys().map(String::len).collect();
        names.prefix_lengths.sort_unstable_by(|a, b| b.cmp(a));
        names.prefix_lengths.dedup();
        names.invert(entries, faults);
        names
    }

    fn add(&mut self, label: &str, number: usize, entry: &Entry, faults: &mut Vec<MapFault>) {
        let (stem, is_prefix) = match entry.old.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (entry.old.as_str(), false),
        };
        let name = entry.name.as_deref().unwrap_or(stem);
        let nameless = !is_prefix && (stem.is_empty() || name.is_empty());
        let header = HeaderValue::from_str(&entry.schema);
        if nameless || stem.contains('*') || entry.schema.is_empty() || header.is_err() {
            faults.push(MapFault::Malformed { old: entry.old.clone() });
            return;
        }
        if is_prefix && entry.name.is_some() {
            faults.push(MapFault::PrefixRenames { old: entry.old.clone() });
            return;
        }
        let line = Line {
            schema: entry.schema.clone(),
            name: name.to_owned(),
            label: format!("{label}{}", entry.old),
            number: u32::try_from(number).unwrap_or(u32::MAX),
        };
        let map = if is_prefix { &mut self.prefixes } else { &mut self.to_new };
        map.insert(stem.to_owned(), line);
    }

    /// Makes the way back, and finds the new names that several old names lead to.
    fn invert(&mut self, entries: &[Entry], faults: &mut Vec<MapFault>) {
        let mut olds: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
        for entry in entries.iter().filter(|e| !e.old.ends_with('*')) {
            let name = entry.name.as_deref().unwrap_or(&entry.old);
            olds.entry((&entry.schema, name)).or_default().push(entry);
        }
        let mut to_old: HashMap<String, HashMap<String, String>> = HashMap::default();
        for ((schema, name), olds) in olds {
            let mut written: Vec<&str> = olds.iter().map(|e| e.old.as_str()).collect();
            // A prefix entry may lead here as well, from the old name that equals the new one.
            if let Some(place) = self.to_new(name)
                && (place.schema, place.name) == (schema, name)
                && place.label.ends_with('*')
            {
                written.push(place.label);
            }
            let mut canonical = olds.iter().filter(|e| e.canonical);
            let first = canonical.next();
            let chosen = if written.len() == 1 { olds.first() } else { first };
            match chosen {
                Some(entry) if canonical.next().is_none() => {
                    let names = to_old.entry(schema.to_owned()).or_default();
                    names.insert(name.to_owned(), entry.old.clone());
                }
                _ => faults.push(MapFault::Ambiguous {
                    to: format!("{schema}.{name}"),
                    names: written.into_iter().map(str::to_owned).collect(),
                }),
            }
        }
        self.to_old = to_old;
    }

    /// Every line of the map, sorted by its old name.
    #[must_use]
    pub fn lines(&self) -> Vec<Mapped<'_>> {
        let exact = self.to_new.iter().map(|(old, line)| Mapped {
            old,
            schema: &line.schema,
            name: Some(&line.name),
            line: line.number,
        });
        let prefixes = self.prefixes.iter().map(|(old, line)| Mapped {
            old,
            schema: &line.schema,
            name: None,
            line: line.number,
        });
        let mut lines: Vec<_> = exact.chain(prefixes).collect();
        lines.sort_unstable();
        lines
    }

    /// Where an old name is on new. An exact entry wins over a prefix, a longer prefix over a shorter one.
    #[must_use]
    pub fn to_new<'m: 'n, 'n>(&'m self, old: &'n str) -> Option<Place<'m, 'n>> {
        if let Some(Line { schema, name, label, number }) = self.to_new.get(old) {
            return Some(Place { schema, name, label, line: *number });
        }
        self.prefix_of(old).map(|line| Place {
            schema: &line.schema,
            name: old,
            label: &line.label,
            line: line.number,
        })
    }

    /// The old name of a name on new; the canonical one where several merged.
    #[must_use]
    pub fn to_old<'a>(&'a self, schema: &str, name: &'a str) -> Option<&'a str> {
        if let Some(old) = self.to_old.get(schema).and_then(|names| names.get(name)) {
            return Some(old);
        }
        // A prefix entry keeps the name, unless an exact entry sends that name elsewhere.
        let place = self.to_new(name)?;
        ((place.schema, place.name) == (schema, name)).then_some(name)
    }

    fn prefix_of(&self, old: &str) -> Option<&Line> {
        self.prefix_lengths
            .iter()
            .filter_map(|length| old.get(..*length))
            .find_map(|prefix| self.prefixes.get(prefix))
    }
}

fn named(kind: Kind, entries: &[Entry]) -> impl Iterator<Item = (Kind, String)> {
    entries.iter().map(move |entry| (kind, entry.old.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(old: &str, to: &str) -> Entry {
        let (schema, name) = match to.split_once('.') {
            Some((schema, name)) => (schema, Some(name.to_owned())),
            None => (to, None),
        };
        Entry { old: old.to_owned(), schema: schema.to_owned(), name, canonical: false }
    }

    fn place(map: &Names, old: &str) -> Option<(String, String)> {
        map.to_new(old).map(|p| (p.schema.to_owned(), p.name.to_owned()))
    }

    #[test]
    fn every_line_can_be_gone_through() {
        let entries = [entry("vendor_keys", "vendors.keys"), entry("smart_*", "intelligence")];
        let map = SchemaMap::build("public", &entries, &[]).unwrap();
        let lines = map.tables().lines();
        let shown: Vec<_> = lines.iter().map(|line| (line.old, line.schema, line.name)).collect();
        assert_eq!(
            shown,
            [("smart_", "intelligence", None), ("vendor_keys", "vendors", Some("keys"))]
        );
        assert_eq!(map.functions().lines(), []);
    }

    #[test]
    fn reads_both_ways_with_exact_before_longest_prefix() {
        let map = SchemaMap::build(
            "public",
            &[
                entry("memory_entries", "security_service"),
                entry("vendor_api_keys", "vendors.api_keys"),
                entry("smart_*", "shared"),
                entry("smart_recall_*", "intelligence"),
                entry("smart_recall_cards", "billing"),
            ],
            &[entry("match_memories", "security_service.match")],
        )
        .unwrap();
        let tables = map.tables();
        for (old, schema, name) in [
            ("memory_entries", "security_service", "memory_entries"),
            ("vendor_api_keys", "vendors", "api_keys"),
            ("smart_home", "shared", "smart_home"),
            ("smart_recall_log", "intelligence", "smart_recall_log"),
            ("smart_recall_cards", "billing", "smart_recall_cards"),
        ] {
            assert_eq!(place(tables, old), Some((schema.into(), name.into())), "{old}");
            assert_eq!(tables.to_old(schema, name), Some(old), "{schema}.{name}");
        }
        assert_eq!(tables.to_new("smart"), None);
        assert_eq!(tables.to_new("match_memories"), None, "functions are apart");
        assert_eq!(map.functions().to_old("security_service", "match"), Some("match_memories"));
        // The exact entry and the longer prefix take these names away.
        assert_eq!(tables.to_old("intelligence", "smart_recall_cards"), None);
        assert_eq!(tables.to_old("shared", "smart_recall_log"), None);
        assert_eq!(tables.to_old("vendors", "billing_records"), None);
        let domains = ["billing", "intelligence", "security_service", "shared", "vendors"];
        assert_eq!(map.domains(), domains);
        assert_eq!((map.domain("vendors"), map.domain("public")), (Some("vendors"), None));
    }

    #[test]
    fn several_old_names_need_exactly_one_canonical() {
        let merged = |canonical: [bool; 2]| {
            let mut entries = [entry("b", "v.keys"), entry("a", "v.keys")];
            entries[0].canonical = canonical[0];
            entries[1].canonical = canonical[1];
            SchemaMap::build("public", &entries, &[])
        };
        assert_eq!(merged([true, false]).unwrap().tables().to_old("v", "keys"), Some("b"));
        assert_eq!(merged([false, true]).unwrap().tables().to_old("v", "keys"), Some("a"));
        for canonical in [[false, false], [true, true]] {
            assert_eq!(
                merged(canonical).unwrap_err(),
                [MapFault::Ambiguous { to: "v.keys".into(), names: vec!["b".into(), "a".into()] }]
            );
        }
    }

    #[test]
    fn a_prefix_counts_among_the_several() {
        let mut entries = [entry("x", "i.smart_x"), entry("smart_*", "i")];
        let names = vec!["x".to_owned(), "smart_*".to_owned()];
        assert_eq!(
            SchemaMap::build("public", &entries, &[]).unwrap_err(),
            [MapFault::Ambiguous { to: "i.smart_x".into(), names }]
        );
        entries[0].canonical = true;
        let map = SchemaMap::build("public", &entries, &[]).unwrap();
        assert_eq!(map.tables().to_old("i", "smart_x"), Some("x"));
    }

    #[test]
    fn every_fault_is_reported() {
        let faults = SchemaMap::build(
            "public",
            &[entry("a*b", "s"), entry("", "s"), entry("t", ""), entry("p_*", "s.renamed")],
            &[entry("f", "bad\nschema")],
        )
        .unwrap_err();
        assert_eq!(
            faults,
            [
                MapFault::Malformed { old: "a*b".into() },
                MapFault::Malformed { old: String::new() },
                MapFault::Malformed { old: "t".into() },
                MapFault::PrefixRenames { old: "p_*".into() },
                MapFault::Malformed { old: "f".into() },
            ]
        );
        assert!(SchemaMap::build("", &[], &[]).is_err());
    }
}
