//! Which tables and functions are counted by name: those that the operator's map names, up to a limit. What a client makes up has no
//! name here, so it can't make a series.
//!
//! A name has a slot for as long as the process lives. A reload that drops a name from the map and a later one that brings it back find
//! the same slot, so counts are neither lost nor mixed, and shards can be plain arrays.

use std::sync::{Arc, Mutex, PoisonError};

use foldhash::{HashMap, HashMapExt};

/// What a REST request can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A table or view.
    Table,
    /// A function.
    Function,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Table, Self::Function];

    /// The `kind` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Function => "function",
        }
    }
}

/// The name under which everything is counted that has no slot of its own: what the map does not name, and what came after the limit.
pub const OTHER: &str = "other";

/// Where the requests for one name are counted. The first slots, one for each kind, are those of [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// The slot of what has none.
    #[must_use]
    pub const fn other(kind: Kind) -> Self {
        Self(kind as u32)
    }

    /// Its place in an array of [`Names::slots`] cells.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The slots of one map, by the numbers of its lines. What a snapshot holds.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<[Option<Slot>]>);

impl Slots {
    /// The slot of a line of the map; `None` is what the map does not name.
    #[must_use]
    pub fn of(&self, kind: Kind, line: Option<u32>) -> Slot {
        let own = line.and_then(|line| *self.0.get(line as usize)?);
        own.unwrap_or_else(|| Slot::other(kind))
    }
}

/// Every name that was ever counted. Grows up to its limit, and never forgets.
#[derive(Debug)]
pub struct Names {
    limit: usize,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// By slot.
    names: Vec<(Kind, Arc<str>)>,
    slots: HashMap<(Kind, Arc<str>), Slot>,
}

impl Names {
    /// No names yet, and room for `limit` of them.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let others = Kind::ALL.map(|kind| (kind, Arc::from(OTHER)));
        let known = Known { names: others.into(), slots: HashMap::new() };
        Self { limit, known: Mutex::new(known) }
    }

    /// Cells that an array needs to have one for each slot there can ever be.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.limit + Kind::ALL.len()
    }

    /// Gives every line of a map its slot. A map comes whole, in the order of its lines; a name that finds no room is counted with the
    /// others. Takes a lock: for whoever makes a snapshot, never for a request.
    #[must_use]
    pub fn assign<'a>(&self, lines: impl IntoIterator<Item = (Kind, &'a str)>) -> Slots {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = lines.into_iter().map(|(kind, name)| known.slot(kind, name, self.slots()));
        Slots(slots.collect())
    }

    /// Every name so far, by slot: [`OTHER`] of each kind first.
    #[must_use]
    pub fn list(&self) -> Vec<(Kind, Arc<str>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).names.clone()
    }
}

impl Known {
    fn slot(&mut self, kind: Kind, name: &str, room: usize) -> Option<Slot> {
        let key = (kind, Arc::from(name));
        if let Some(slot) = self.slots.get(&key) {
            return Some(*slot);
        }
        let slot = Slot(u32::try_from(self.names.len()).ok()?);
        // A map may well name a table "other": it has no second series, which would be the same one twice on the page.
        if self.names.len() >= room || name == OTHER {
            return None;
        }
        self.names.push(key.clone());
        self.slots.insert(key, slot);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Kind = Kind::Table;

    fn slot(slots: &Slots, line: u32) -> usize {
        slots.of(TABLE, Some(line)).index()
    }

    #[test]
    fn a_name_keeps_its_slot_through_maps_without_it() {
        let names = Names::new(10);
        let first = names.assign([(TABLE, "a"), (TABLE, "b"), (Kind::Function, "a")]);
        let second = names.assign([(TABLE, "c")]);
        let third = names.assign([(TABLE, "c"), (TABLE, "b"), (TABLE, "a")]);
        assert_eq!([0, 1, 2].map(|line| slot(&first, line)), [2, 3, 4]);
        assert_eq!(slot(&second, 0), 5);
        assert_eq!([0, 1, 2].map(|line| slot(&third, line)), [5, 3, 2]);
        let list: Vec<_> =
            names.list().iter().map(|(kind, name)| format!("{}:{name}", kind.as_str())).collect();
        let want = ["table:other", "function:other", "table:a", "table:b", "function:a", "table:c"];
        assert_eq!(list, want);
    }

    #[test]
    fn what_has_no_room_or_no_line_is_other() {
        let names = Names::new(1);
        let slots = names.assign([(TABLE, "a"), (TABLE, "b"), (TABLE, "other")]);
        assert_eq!(slots.of(TABLE, Some(0)).index(), 2);
        for line in [Some(1), Some(2), Some(99), None] {
            assert_eq!(slots.of(TABLE, line), Slot::other(TABLE), "{line:?}");
        }
        assert_eq!(slots.of(Kind::Function, None).index(), 1);
        assert!(names.list().len() <= names.slots());
        assert_eq!(Slots::default().of(TABLE, Some(0)), Slot::other(TABLE));
        let none = Names::new(0);
        assert_eq!(slot(&none.assign([(TABLE, "a")]), 0), 0);
    }
}
