//! The comparison of tables in memory: what was planted is found, and nothing else, wherever pages end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::compare::Kind;
use super::super::tally::digest;
use super::*;

type Table = BTreeMap<Key, (Option<String>, String)>;

/// Two sides in memory. Each orders its keys in a way of its own, as collations do.
struct Memory {
    sides: Pair<Vec<Table>>,
    page: usize,
    /// Pages read so far.
    read: Cell<usize>,
    /// How many may be read.
    most: Cell<usize>,
}

impl Memory {
    fn new(old: Table, new: Table, page: usize) -> Self {
        Self {
            sides: Pair { old: vec![old], new: vec![new] },
            page,
            read: Cell::new(0),
            most: Cell::new(usize::MAX),
        }
    }

    fn ordered(&self, side: Side, relation: usize) -> Vec<(Key, String)> {
        let table = &self.sides[side][relation];
        let mut rows: Vec<_> =
            table.iter().map(|(key, row)| (key.clone(), format!("{row:?}"))).collect();
        if side == Side::New {
            rows.sort_by_key(|(key, _)| key.concat().chars().rev().collect::<String>());
        }
        rows
    }
}

impl Source for Memory {
    async fn page(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        after: Option<&Key>,
        want: Want<'_>,
    ) -> Result<Page, Failure> {
        if self.read.get() >= self.most.get() {
            return Err(Failure(side, "stopped".into()));
        }
        self.read.set(self.read.get() + 1);
        let rows = self.ordered(side, relation.name.parse().unwrap());
        let start =
            after.map_or(0, |after| rows.iter().position(|(key, _)| key == after).unwrap() + 1);
        let end = (start + self.page).min(rows.len());
        let mut page = Page { walked: (end - start) as u64, ..Page::default() };
        for (key, row) in &rows[start..end] {
            let Some(bucket) = job.sample.bucket(key) else { continue };
            match want {
                Want::Tallies => page.tallies.push((bucket, Tally::of(digest(row)))),
                Want::Rows(buckets) if buckets.contains(&bucket) => {
                    page.rows.push((key.clone(), digest(row)));
                }
                Want::Rows(_) => {}
            }
        }
        page.last = (end < rows.len()).then(|| rows[end - 1].0.clone());
        Ok(page)
    }

    async fn cells(
        &self,
        side: Side,
        relation: &Relation,
        _: &Job,
        keys: &[Key],
    ) -> Result<Found, Failure> {
        let table = &self.sides[side][relation.name.parse::<usize>().unwrap()];
        let rows = keys.iter().filter_map(|key| {
            let (a, b) = table.get(key)?;
            Some((key.clone(), vec![vec![a.clone(), Some(b.clone())]]))
        });
        Ok(rows.collect())
    }
}

/// Remembers how far it was.
#[derive(Default)]
struct Kept(RefCell<Pair<Reached>>);

impl Watch for Kept {
    fn reached(&self, _: &Job, side: Side, reached: &Reached) {
        self.0.borrow_mut()[side] = reached.clone();
    }

    async fn pace(&self, _: u64) {}
}

fn job(source: &Memory) -> Job {
    let relations = |side: Side| {
        let names = 0..source.sides[side].len();
        names.map(|n| Relation { name: n.to_string(), ..Relation::default() }).collect()
    };
    Job {
        relations: Pair::from_fn(relations),
        key: vec!["k".into()],
        columns: vec!["a".into(), "b".into()],
        most: 10_000,
        ..Job::default()
    }
}

fn run(source: &Memory, job: &Job, watch: &Kept, begun: Pair<Reached>) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(compare(source, watch, job, begun))
}

fn table(keys: impl IntoIterator<Item = u32>) -> Table {
    keys.into_iter()
        .map(|n| (vec![format!("{n:x}"), String::new()], (Some(format!("a{n}")), format!("b{n}"))))
        .collect()
}

/// Makes new out of old by what is planted; returns what has to be found.
fn plant(old: &mut Table, plants: &[(prop::sample::Index, u8)]) -> (Table, Vec<Difference>) {
    let (keys, mut new) = (old.keys().cloned().collect::<Vec<_>>(), old.clone());
    let mut expected = BTreeMap::new();
    for (at, how) in plants {
        let key = at.get(&keys).clone();
        if expected.contains_key(&key) {
            continue;
        }
        let changed =
            |columns: &[&str]| (Kind::Changed, columns.iter().map(ToString::to_string).collect());
        let (kind, columns) = match how % 5 {
            0 => {
                new.remove(&key);
                (Kind::Missing, Vec::new())
            }
            1 => {
                old.remove(&key);
                (Kind::Extra, Vec::new())
            }
            2 => {
                new.get_mut(&key).unwrap().0 = None;
                old.get_mut(&key).unwrap().0 = Some(String::new());
                changed(&["a"])
            }
            3 => {
                new.get_mut(&key).unwrap().1.push(' ');
                changed(&["b"])
            }
            _ => {
                new.insert(key.clone(), (Some(String::new()), String::new()));
                changed(&["a", "b"])
            }
        };
        expected.insert(key.clone(), Difference { kind, key, columns });
    }
    let mut expected: Vec<_> = expected.into_values().collect();
    expected.sort();
    (new, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_planted_is_found_and_nothing_else(
        keys in prop::collection::btree_set(0_u32..5000, 1..200),
        plants in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        page in 1_usize..70,
    ) {
        let mut old = table(keys);
        let (new, expected) = plant(&mut old, &plants);
        let (here, there) = (old.len() as u64, new.len() as u64);
        let source = Memory::new(old, new, page);
        let outcome = run(&source, &job(&source), &Kept::default(), Pair::default()).unwrap();
        prop_assert_eq!(outcome.differences, expected);
        prop_assert_eq!(outcome.rows, Pair { old: here, new: there });
        prop_assert!(!outcome.is_cut);
    }

    /// Stopped anywhere in the first step and taken up again, it finds the same, and reads no page of that step twice.
    #[test]
    fn a_comparison_taken_up_again_finds_the_same(
        keys in prop::collection::btree_set(0_u32..5000, 1..200),
        plants in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..9),
        page in 1_usize..70,
        stop in 0_usize..12,
    ) {
        let mut old = table(keys);
        let (new, expected) = plant(&mut old, &plants);
        let source = Memory::new(old, new, page);
        let job = job(&source);
        let whole = run(&source, &job, &Kept::default(), Pair::default()).unwrap();
        let pages = source.read.replace(0);
        source.most.set(stop);
        let kept = Kept::default();
        let first = run(&source, &job, &kept, Pair::default());
        source.most.set(usize::MAX);
        if let Ok(outcome) = first {
            prop_assert_eq!(outcome, whole);
            return Ok(());
        }
        let reached = kept.0.into_inner();
        let is_first_step = Side::ALL.iter().any(|side| reached[*side].relation == 0);
        // What a file would keep.
        let reached = serde_json::from_str(&serde_json::to_string(&reached).unwrap()).unwrap();
        let again = run(&source, &job, &Kept::default(), reached).unwrap();
        prop_assert_eq!(&again.differences, &expected);
        prop_assert_eq!(again, whole);
        if is_first_step {
            prop_assert_eq!(source.read.get(), pages);
        }
    }

    /// A sample sees the same keys on both sides, so it never finds what is not there.
    #[test]
    fn a_sample_finds_a_part_of_the_differences_and_no_others(
        keys in prop::collection::btree_set(0_u32..5000, 20..200),
        plants in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        wanted in 0_u64..200,
    ) {
        let mut old = table(keys);
        let (new, expected) = plant(&mut old, &plants);
        let rows = old.len() as u64;
        let source = Memory::new(old, new, 50);
        let job = Job { sample: Sample::of("seed", Some(wanted), rows), ..job(&source) };
        let outcome = run(&source, &job, &Kept::default(), Pair::default()).unwrap();
        let in_sample = expected.into_iter().filter(|found| job.sample.bucket(&found.key).is_some());
        prop_assert_eq!(outcome.differences, in_sample.collect::<Vec<_>>());
    }
}

#[test]
fn two_old_tables_that_become_one_are_compared_together() {
    let (first, second) = (table(0..50), table(50..80));
    let mut new = first.clone();
    new.extend(second.clone());
    let gone = new.keys().next().unwrap().clone();
    new.remove(&gone);
    let mut source = Memory::new(first, new, 7);
    source.sides.old.push(second);
    let outcome = run(&source, &job(&source), &Kept::default(), Pair::default()).unwrap();
    assert_eq!(outcome.rows, Pair { old: 80, new: 79 });
    let found: Vec<_> = outcome.differences.iter().map(|found| (found.kind, &found.key)).collect();
    assert_eq!(found, [(Kind::Missing, &gone)]);
}

#[test]
fn what_is_too_much_is_cut_and_said() {
    let source = Memory::new(table(0..500), table(1000..1500), 100);
    for (most, is_cut) in [(999, true), (1000, false)] {
        let job = Job { most, ..job(&source) };
        let outcome = run(&source, &job, &Kept::default(), Pair::default()).unwrap();
        assert_eq!((outcome.differences.len(), outcome.is_cut), (most, is_cut));
        let keys: BTreeSet<_> = outcome.differences.iter().map(|found| &found.key).collect();
        assert_eq!(keys.len(), most, "each once");
    }
}
