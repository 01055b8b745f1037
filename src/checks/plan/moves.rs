//! What moves: every relation and function of the legacy schema that the map names, with its new place.

use std::collections::{BTreeMap, BTreeSet};

use crate::checks::catalogue::{Catalogue, Function, Kind, Relation, Sequence};
use crate::checks::quote::{self, literal, qualified};
use crate::rewrite::schema::SchemaMap;

/// A relation and its place on new.
#[derive(Clone, Debug)]
pub(super) struct Move<'c> {
    pub(super) relation: &'c Relation,
    pub(super) schema: String,
    pub(super) name: String,
}

/// All functions of one name, and their place on new.
#[derive(Clone, Debug)]
pub(super) struct FunctionMove<'c> {
    pub(super) old: &'c str,
    pub(super) overloads: Vec<&'c Function>,
    pub(super) schema: String,
    pub(super) name: String,
}

/// Everything that moves.
#[derive(Clone, Debug)]
pub(super) struct Moves<'c> {
    pub(super) legacy: &'c str,
    pub(super) tables: Vec<Move<'c>>,
    pub(super) functions: Vec<FunctionMove<'c>>,
    /// Old names whose rows belong in a table that another one becomes: old name → its place.
    pub(super) merged: BTreeMap<&'c str, (String, String)>,
    /// What can't be moved, in sentences.
    pub(super) by_hand: Vec<String>,
}

impl Move<'_> {
    pub(super) fn old_name(&self) -> String {
        qualified(&self.relation.schema, &self.relation.name)
    }

    pub(super) fn new_name(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// The relation wherever it is: at its new place, else still at its old one.
    pub(super) fn found(&self) -> String {
        found(&self.new_name(), &self.old_name())
    }

    pub(super) fn is_renamed(&self) -> bool {
        self.relation.name != self.name
    }

    /// `a.b → c.d`, for people.
    pub(super) fn shown(&self) -> String {
        let Relation { schema, name, .. } = self.relation;
        format!("{schema}.{name} → {}.{}", self.schema, self.name)
    }
}

/// An expression for the relation at the first of two places.
pub(super) fn found(first: &str, second: &str) -> String {
    format!("coalesce(to_regclass({}), to_regclass({}))", literal(first), literal(second))
}

impl<'c> Moves<'c> {
    pub(super) fn of(old: &'c Catalogue, map: &'c SchemaMap) -> Self {
        let mut moves = Self {
            legacy: map.legacy(),
            tables: Vec::new(),
            functions: Vec::new(),
            merged: BTreeMap::new(),
            by_hand: Vec::new(),
        };
        moves.add_tables(old, map);
        moves.add_partitions(old);
        moves.add_functions(old, map);
        moves
    }

    fn add_tables(&mut self, old: &'c Catalogue, map: &SchemaMap) {
        let mut places: BTreeMap<(String, String), Vec<&'c Relation>> = BTreeMap::new();
        for relation in old.relations.iter().filter(|it| it.schema == self.legacy) {
            if let Some(place) = map.tables().to_new(&relation.name)
                && (place.schema, place.name) != (self.legacy, relation.name.as_str())
            {
                let place = (place.schema.to_owned(), place.name.to_owned());
                places.entry(place).or_default().push(relation);
            }
        }
        for ((schema, name), olds) in places {
            let canonical = map.tables().to_old(&schema, &name);
            let chosen = olds.iter().find(|it| Some(it.name.as_str()) == canonical);
            let Some(&chosen) = chosen.or_else(|| olds.first()) else { continue };
            for other in olds.iter().filter(|it| it.name != chosen.name) {
                self.by_hand.push(format!(
                    "{}.{} becomes {schema}.{name} as well: insert its rows there, then drop or rename it, and apply again",
                    self.legacy, other.name
                ));
                self.merged.insert(&other.name, (schema.clone(), name.clone()));
            }
            if old.relation(&schema, &name).is_some() {
                self.by_hand.push(format!(
                    "{}.{} can't become {schema}.{name}: old has a relation of that name already",
                    self.legacy, chosen.name
                ));
                continue;
            }
            self.tables.push(Move { relation: chosen, schema, name });
        }
        self.tables.sort_by(|a, b| a.relation.name.cmp(&b.relation.name));
    }

    /// Partitions that the map doesn't name go where their table goes: they are a part of it.
    fn add_partitions(&mut self, old: &'c Catalogue) {
        let taken: BTreeSet<_> =
            self.tables.iter().map(|it| (it.schema.clone(), it.name.clone())).collect();
        loop {
            let known: BTreeSet<&str> =
                self.tables.iter().map(|it| it.relation.name.as_str()).collect();
            let more: Vec<_> = old
                .relations
                .iter()
                .filter(|it| it.schema == self.legacy && !known.contains(it.name.as_str()))
                .filter(|it| !self.merged.contains_key(it.name.as_str()))
                .filter_map(|it| {
                    let parent = it.partition_of.as_ref().filter(|p| p.schema == self.legacy)?;
                    let parent = self.tables.iter().find(|m| m.relation.name == parent.name)?;
                    let place = (parent.schema.clone(), it.name.clone());
                    let is_free = parent.schema != self.legacy
                        && !taken.contains(&place)
                        && old.relation(&place.0, &place.1).is_none();
                    is_free.then_some(Move { relation: it, schema: place.0, name: place.1 })
                })
                .collect();
            if more.is_empty() {
                return;
            }
            self.tables.extend(more);
        }
    }

    fn add_functions(&mut self, old: &'c Catalogue, map: &SchemaMap) {
        let mut named: BTreeMap<&'c str, Vec<&'c Function>> = BTreeMap::new();
        for function in old.functions.iter().filter(|it| it.schema == self.legacy) {
            named.entry(&function.name).or_default().push(function);
        }
        for (name, overloads) in named {
            if let Some(place) = map.functions().to_new(name)
                && (place.schema, place.name) != (self.legacy, name)
            {
                let (schema, to) = (place.schema.to_owned(), place.name.to_owned());
                self.functions.push(FunctionMove { old: name, overloads, schema, name: to });
            }
        }
    }

    /// The move of a relation of the legacy schema.
    pub(super) fn table(&self, old: &str) -> Option<&Move<'c>> {
        self.tables.iter().find(|it| it.relation.name == old)
    }

    pub(super) fn function(&self, old: &str) -> Option<&FunctionMove<'c>> {
        self.functions.iter().find(|it| it.old == old)
    }

    /// Every schema that something moves into, in their order.
    pub(super) fn schemas(&self) -> BTreeSet<&str> {
        let tables = self.tables.iter().map(|it| it.schema.as_str());
        tables.chain(self.functions.iter().map(|it| it.schema.as_str())).collect()
    }

    /// The schema of a sequence after the move: a table takes along those that fill its columns.
    pub(super) fn sequence_schema<'s>(&'s self, sequence: &'s Sequence) -> &'s str {
        let owner = sequence.owned_by.as_ref().filter(|it| it.schema == self.legacy);
        let table = owner.and_then(|owner| self.table(&owner.table));
        match table {
            Some(table) if sequence.schema == self.legacy => &table.schema,
            _ => &sequence.schema,
        }
    }

    /// A query for the function's `oid` on new: wherever it is, and whatever its arguments' types are called by now.
    pub(super) fn function_oids(&self, function: &Function, old: &Catalogue) -> String {
        let here = (function.schema.as_str(), function.name.as_str());
        let place = self.function(&function.name).filter(|_| function.schema == self.legacy);
        let mut places = vec![here];
        if let Some(place) = place {
            places.push((&place.schema, &place.name));
        }
        let places: Vec<_> = places
            .iter()
            .map(|(schema, name)| {
                let schema = literal(&quote::ident(schema));
                format!(
                    "(p.pronamespace = to_regnamespace({schema}) and p.proname = {})",
                    literal(name)
                )
            })
            .collect();
        let mut query =
            format!("select p.oid from pg_catalog.pg_proc p where ({})", places.join(" or "));
        if old.functions(&function.schema, &function.name).count() > 1 {
            let arguments = [function.identity_arguments.clone(), self.renamed(function)];
            query = format!(
                "{query} and pg_get_function_identity_arguments(p.oid) = any ({})",
                quote::texts(&arguments)
            );
        }
        query
    }

    /// The arguments as they are called once the tables moved whose row types they are.
    fn renamed(&self, function: &Function) -> String {
        let mut arguments = function.identity_arguments.clone();
        for it in &self.tables {
            let old = format!("{}.{}", self.legacy, it.relation.name);
            if arguments.ends_with(&old) || arguments.contains(&format!("{old},")) {
                arguments = arguments.replace(&old, &format!("{}.{}", it.schema, it.name));
            }
        }
        arguments
    }
}

/// The word of `ALTER …` for a relation.
pub(super) const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Table | Kind::Partitioned => "table",
        Kind::View => "view",
        Kind::Materialised => "materialized view",
        Kind::Foreign => "foreign table",
    }
}
