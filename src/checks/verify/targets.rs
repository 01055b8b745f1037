//! Which relation of old is compared with which of new, by which columns. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::sql::{Kind, Relation};
use crate::rewrite::schema::SchemaMap;
use crate::side::{Pair, Side};

/// What the operator wants to have compared.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these tables, by any of their names; empty: all.
    pub tables: Vec<String>,
    /// Columns that are left out: `column`, or `table.column`.
    pub ignored: Vec<String>,
    /// Keys where no primary key says them: table, columns.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Whether tables that the map does not name are compared under their own name.
    pub unmapped: bool,
}

/// A table as both sides have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `schema.name` of each old table; several where they become one.
    pub old: Vec<String>,
    /// `schema.name` of the new table.
    pub new: String,
    /// Whether the map names it.
    pub is_mapped: bool,
    /// The relations, as far as they are there.
    pub relations: Pair<Vec<Relation>>,
    /// Why it can't be compared.
    pub fault: Option<String>,
}

/// How a target's rows are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The key's columns; empty: there is none.
    pub key: Vec<String>,
    /// The columns that both sides have and nobody ignores, by name.
    pub columns: Vec<String>,
    /// Columns of old that new lacks: their values were not brought over.
    pub lost: Vec<String>,
    /// Columns that only new has.
    pub added: Vec<String>,
    /// Columns that were left out on request.
    pub ignored: Vec<String>,
    /// Vector columns of both sides.
    pub vectors: Vec<String>,
}

impl Target {
    /// How the table is called where one name has to do.
    #[must_use]
    pub fn label(&self) -> String {
        match self.old.is_empty() {
            true => self.new.clone(),
            false => self.old.join(" + "),
        }
    }

    /// Whether a name that the operator wrote means this table: with its schema, or without.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let mut names = self.old.iter().chain([&self.new]);
        names.any(|full| full == name || full.split_once('.').is_some_and(|(_, bare)| bare == name))
    }

    /// How its rows are compared.
    #[must_use]
    pub fn shape(&self, wanted: &Wanted) -> Shape {
        // Without columns: nothing describes the relation, and it has no row to read them from.
        let described = |relation: &&Relation| !relation.columns.is_empty();
        let all: Vec<&Relation> =
            Side::ALL.iter().flat_map(|side| &self.relations[*side]).filter(described).collect();
        let names = |side: Side| -> BTreeSet<&str> {
            let columns = self.relations[side].iter().flat_map(|relation| &relation.columns);
            columns.map(|column| column.name.as_str()).collect()
        };
        let (old, new) = (names(Side::Old), names(Side::New));
        let is_ignored = |column: &str| {
            wanted.ignored.iter().any(|ignored| match ignored.rsplit_once('.') {
                Some((table, name)) => name == column && self.is_called(table),
                None => ignored == column,
            })
        };
        let mut shape = Shape { key: self.key(wanted, &all), ..Shape::default() };
        for name in old.union(&new) {
            let is_vector = all.iter().any(|relation| {
                relation.column(name).is_some_and(|column| column.kind == Kind::Vector)
            });
            let everywhere = all.iter().all(|relation| relation.column(name).is_some());
            if everywhere && is_vector {
                shape.vectors.push((*name).to_owned());
            }
            let list = match (is_ignored(name), everywhere, new.contains(name)) {
                (true, ..) => &mut shape.ignored,
                (false, true, _) => &mut shape.columns,
                (false, false, true) => &mut shape.added,
                (false, false, false) => &mut shape.lost,
            };
            list.push((*name).to_owned());
        }
        shape
    }

    /// What the operator says, else the primary key of the first relation that has one. All of them must have its columns.
    fn key(&self, wanted: &Wanted, all: &[&Relation]) -> Vec<String> {
        let said = wanted.keys.iter().find(|(table, _)| self.is_called(table));
        let own = || all.iter().map(|relation| &relation.key).find(|key| !key.is_empty());
        let key = said.map(|(_, columns)| columns).or_else(own).cloned().unwrap_or_default();
        let everywhere = |name: &String| all.iter().all(|one| one.column(name).is_some());
        if key.iter().all(everywhere) { key } else { Vec::new() }
    }
}

/// Pairs what both sides have by the map: its exact entries, the names that its prefix entries stand for, and, if wanted, the tables that
/// it leaves alone and that both sides have under one name. Sorted by the new name.
#[must_use]
pub fn targets(map: &SchemaMap, found: &Pair<Vec<Relation>>, wanted: &Wanted) -> Vec<Target> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    let mut add = |old: Option<(&str, &str)>, new: (&str, &str), is_mapped| {
        let name = format!("{}.{}", new.0, new.1);
        let target = targets.entry(name.clone()).or_default();
        (target.new, target.is_mapped) = (name, is_mapped);
        target.relations.new = find(&found.new, new).into_iter().collect();
        if let Some(old) = old {
            target.old.push(format!("{}.{}", old.0, old.1));
            target.relations.old.extend(find(&found.old, old));
        }
    };
    let (legacy, tables) = (map.legacy(), map.tables());
    let lines = tables.lines();
    for line in &lines {
        if let Some(name) = line.name {
            add(Some((legacy, line.old)), (line.schema, name), true);
        }
    }
    let exact: BTreeSet<&str> =
        lines.iter().filter(|line| line.name.is_some()).map(|line| line.old).collect();
    let prefixed =
        |relation: &&Relation| relation.schema == legacy && !exact.contains(relation.name.as_str());
    for relation in found.old.iter().filter(prefixed) {
        if let Some(place) = tables.to_new(&relation.name) {
            add(Some((legacy, &relation.name)), (place.schema, place.name), true);
        }
    }
    for relation in found.new.iter().filter(|relation| relation.schema != legacy) {
        // A table of new that a prefix entry leads to, and that old lacks.
        let name = tables.to_old(&relation.schema, &relation.name);
        if let Some(name) = name.filter(|name| !exact.contains(name))
            && find(&found.old, (legacy, name)).is_none()
        {
            add(Some((legacy, name)), (&relation.schema, &relation.name), true);
        }
    }
    if wanted.unmapped {
        for relation in found.old.iter().filter(|relation| relation.is_table) {
            let is_mapped = relation.schema == legacy && tables.to_new(&relation.name).is_some();
            let place = (relation.schema.as_str(), relation.name.as_str());
            if !is_mapped && find(&found.new, place).is_some() {
                add(Some(place), place, false);
            }
        }
    }
    let mut targets: Vec<Target> = targets.into_values().collect();
    targets.iter_mut().for_each(judge);
    if !wanted.tables.is_empty() {
        targets.retain(|target| wanted.tables.iter().any(|name| target.is_called(name)));
    }
    targets
}

/// The names of tables that the operator wrote and no table has: what is misspelt would be left out in silence.
#[must_use]
pub fn unknown(targets: &[Target], wanted: &Wanted) -> Vec<String> {
    let mut names: Vec<&str> = wanted.tables.iter().map(String::as_str).collect();
    // With --table, what is said of other tables has nothing to refer to.
    if names.is_empty() {
        names.extend(wanted.keys.keys().map(String::as_str));
        let ignored = wanted.ignored.iter().filter_map(|ignored| ignored.rsplit_once('.'));
        names.extend(ignored.map(|(table, _)| table));
    }
    let is_unknown = |name: &&str| !targets.iter().any(|target| target.is_called(name));
    names.into_iter().filter(is_unknown).map(str::to_owned).collect()
}

fn find(relations: &[Relation], place: (&str, &str)) -> Option<Relation> {
    let is_it = |relation: &&Relation| (relation.schema.as_str(), relation.name.as_str()) == place;
    relations.iter().find(is_it).cloned()
}

fn judge(target: &mut Target) {
    let lacks_old = target.relations.old.len() < target.old.len();
    target.fault = match (lacks_old, target.relations.new.is_empty()) {
        (false, false) => None,
        (true, true) => Some(format!("neither old has {} nor new {}", target.label(), target.new)),
        (true, false) => Some(format!("old has no {}", target.label())),
        (false, true) => Some(format!("new has no {}", target.new)),
    };
}

#[cfg(test)]
mod tests {
    use super::super::sql::Column;
    use super::*;
    use crate::rewrite::schema::Entry;

    fn relation(place: &str, columns: &[&str], key: &[&str]) -> Relation {
        let (schema, name) = place.split_once('.').unwrap();
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_name: "text".into(),
            kind: if name.starts_with("embedding") { Kind::Vector } else { Kind::Plain },
        };
        Relation {
            schema: schema.into(),
            name: name.into(),
            is_table: !name.ends_with("_view"),
            columns: columns.iter().map(column).collect(),
            key: key.iter().map(ToString::to_string).collect(),
        }
    }

    fn map(lines: &[(&str, &str)]) -> SchemaMap {
        let entry = |(old, to): &(&str, &str)| {
            let (schema, name) = to.split_once('.').map_or((*to, None), |(s, n)| (s, Some(n)));
            let (old, schema) = ((*old).to_owned(), schema.to_owned());
            let canonical = old.ends_with('1');
            Entry { old, schema, name: name.map(str::to_owned), canonical }
        };
        let entries: Vec<Entry> = lines.iter().map(entry).collect();
        SchemaMap::build("public", &entries, &[]).unwrap()
    }

    fn shown(targets: &[Target]) -> Vec<String> {
        let line = |t: &Target| {
            let fault = t.fault.as_deref().map_or_else(String::new, |fault| format!(" ({fault})"));
            format!("{} → {}{}{fault}", t.label(), t.new, if t.is_mapped { "" } else { " =" })
        };
        targets.iter().map(line).collect()
    }

    #[test]
    fn the_map_says_what_is_compared() {
        let map = map(&[
            ("orders", "marketplace"),
            ("vendor_keys1", "vendors.keys"),
            ("vendor_keys2", "vendors.keys"),
            ("smart_*", "intelligence"),
            ("smart_home", "billing"),
            ("typo", "billing"),
        ]);
        let plain = |place| relation(place, &["id"], &["id"]);
        let found = Pair {
            old: [
                "public.orders",
                "public.vendor_keys1",
                "public.vendor_keys2",
                "public.smart_a",
                "public.smart_home",
                "public.own",
                "public.left_view",
                "app.widgets",
                "app.gone",
            ]
            .map(plain)
            .to_vec(),
            new: [
                "marketplace.orders",
                "vendors.keys",
                "intelligence.smart_b",
                "billing.smart_home",
                "public.own",
                "public.orders",
                "public.left_view",
                "app.widgets",
            ]
            .map(plain)
            .to_vec(),
        };
        let wanted = Wanted { unmapped: true, ..Wanted::default() };
        assert_eq!(
            shown(&targets(&map, &found, &wanted)),
            [
                "app.widgets → app.widgets =",
                "public.smart_home → billing.smart_home",
                "public.typo → billing.typo (neither old has public.typo nor new billing.typo)",
                "public.smart_a → intelligence.smart_a (new has no intelligence.smart_a)",
                "public.smart_b → intelligence.smart_b (old has no public.smart_b)",
                "public.orders → marketplace.orders",
                "public.own → public.own =",
                "public.vendor_keys1 + public.vendor_keys2 → vendors.keys",
            ]
        );
        let mapped = targets(&map, &found, &Wanted::default());
        assert!(mapped.iter().all(|target| target.is_mapped));
        let names = ["keys".to_owned(), "public.orders".into(), "nobody".into()];
        let wanted = Wanted { tables: names.to_vec(), ..Wanted::default() };
        let some = targets(&map, &found, &wanted);
        assert_eq!(some.len(), 2);
        assert_eq!(unknown(&some, &wanted), ["nobody"]);
        let wanted = Wanted {
            ignored: vec![
                "at".into(),
                "orders.at".into(),
                "order.at".into(),
                "public.ordres.at".into(),
            ],
            keys: BTreeMap::from([("kyes".to_owned(), vec![])]),
            ..Wanted::default()
        };
        assert_eq!(unknown(&mapped, &wanted), ["kyes", "order", "public.ordres"]);
    }

    #[test]
    fn columns_are_those_of_both_sides() {
        let target = Target {
            old: vec!["public.entries".into()],
            new: "security.entries".into(),
            relations: Pair {
                old: vec![relation(
                    "public.entries",
                    &["id", "a", "lost", "b", "embedding"],
                    &["id"],
                )],
                new: vec![relation(
                    "security.entries",
                    &["added", "b", "a", "embedding", "id"],
                    &[],
                )],
            },
            ..Target::default()
        };
        let shape = |ignored: &[&str]| {
            let ignored = ignored.iter().map(ToString::to_string).collect();
            target.shape(&Wanted { ignored, ..Wanted::default() })
        };
        let all = shape(&[]);
        assert_eq!(all.columns, ["a", "b", "embedding", "id"]);
        assert_eq!((all.lost.concat(), all.added.concat()), ("lost".into(), "added".into()));
        assert_eq!((all.vectors.concat(), all.key.concat()), ("embedding".into(), "id".into()));
        for ignored in ["a", "entries.a", "public.entries.a", "security.entries.a"] {
            assert_eq!(shape(&[ignored]).columns, ["b", "embedding", "id"], "{ignored}");
        }
        assert_eq!(shape(&["other.a", "x"]).columns, all.columns);
        assert!(shape(&["lost"]).lost.is_empty(), "what is ignored is no loss");
        let mut undescribed = target.clone();
        undescribed.relations.new[0].columns.clear();
        let shape = undescribed.shape(&Wanted::default());
        assert_eq!((shape.columns.len(), shape.lost.len()), (5, 0), "old's columns are asked for");
        let with_key = |table: &str, column: &str| {
            let keys = BTreeMap::from([(table.to_owned(), vec![column.to_owned()])]);
            target.shape(&Wanted { keys, ..Wanted::default() }).key.concat()
        };
        assert_eq!(with_key("entries", "a"), "a");
        assert_eq!(with_key("entries", "lost"), "", "both sides need it");
        assert_eq!(with_key("other", "a"), "id");
    }
}
