//! What a comparison found, and how it is shown. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::compare::{Difference, Kind};
use crate::side::Pair;

/// How something compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same on both sides.
    #[default]
    Equal,
    /// Owned by one side for everybody, so that no agreement is asked for.
    Owned,
    /// Not the same.
    Differ,
    /// It could not be compared, or not to its end.
    NotCompared,
}

impl Verdict {
    /// A word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Owned => "owned",
            Self::Differ => "differ",
            Self::NotCompared => "not compared",
        }
    }
}

/// A whole comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The worst of all verdicts below.
    pub verdict: Verdict,
    /// `rest` or `database`.
    pub through: &'static str,
    /// `counts`, `all`, or the number of rows wanted for each table.
    pub rows: String,
    /// What the sample was drawn with.
    pub seed: Option<String>,
    /// Whether it went on from a state file.
    pub resumed: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Every table, by its new name.
    pub tables: Vec<Table>,
    /// Every bucket of storage.
    pub buckets: Vec<Bucket>,
    /// What the operator should know of the comparison itself.
    pub warnings: Vec<String>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// How it compared.
    pub verdict: Verdict,
    /// Its name on old; several where they become one.
    pub old: Vec<String>,
    /// Its name on new.
    pub new: String,
    /// Whether the map names it.
    pub is_mapped: bool,
    /// How many rows each side has.
    pub counts: Pair<Option<u64>>,
    /// Empty values of vector columns.
    pub null_embeddings: Vec<Nulls>,
    /// The rows, where they were compared.
    pub rows: Option<Rows>,
    /// Whether rows were asked for and could not be looked at, because no key is known.
    pub is_only_counted: bool,
    /// Columns that only old has.
    pub columns_lost: Vec<String>,
    /// Columns that only new has.
    pub columns_added: Vec<String>,
    /// Columns that were left out on request.
    pub columns_ignored: Vec<String>,
    /// Why it could not be compared, or not fully.
    pub fault: Option<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// Empty values of a vector column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nulls {
    /// The column.
    pub column: String,
    /// How many rows of old have none.
    pub old: u64,
    /// How many rows of new have none.
    pub new: u64,
}

/// The rows of one table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// How many of each side were compared.
    pub compared: Pair<u64>,
    /// Whether these are a sample.
    pub is_sample: bool,
    /// The key's columns; empty: the table has no key, and rows can't be named.
    pub key: Vec<String>,
    /// Rows that new lacks.
    pub missing: u64,
    /// Rows that old lacks.
    pub extra: u64,
    /// Rows with other values.
    pub changed: u64,
    /// Rows that differed at first, and no longer when they were looked at again.
    pub settled: u64,
    /// Whether there may be more than are listed.
    pub is_cut: bool,
    /// Whether the rows of a table without a key are not the same.
    pub keyless_differ: bool,
    /// Each row that differs.
    pub differences: Vec<Difference>,
}

/// A bucket, or a folder in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// How it compared.
    pub verdict: Verdict,
    /// On old.
    pub old: String,
    /// On new: a bucket, or a bucket and the folder in it.
    pub new: String,
    /// Whether a side has no such bucket.
    pub is_missing: bool,
    /// How many objects.
    pub objects: Pair<Option<u64>>,
    /// How many bytes, where both sides say it.
    pub bytes: Pair<Option<u64>>,
    /// Why it could not be compared, or why it need not agree.
    pub note: Option<String>,
}

impl Rows {
    /// Counts what is listed.
    pub fn counted(&mut self) {
        let of = |kind| self.differences.iter().filter(|found| found.kind == kind).count() as u64;
        (self.missing, self.extra, self.changed) =
            (of(Kind::Missing), of(Kind::Extra), of(Kind::Changed));
    }

    fn are_equal(&self) -> bool {
        self.differences.is_empty() && !self.keyless_differ && !self.is_cut
    }
}

impl Table {
    /// Sets the verdict by what was found. A column that new lacks is a difference: its values were not brought over.
    pub fn judge(&mut self) {
        let same_rows = self.rows.as_ref().is_none_or(Rows::are_equal);
        let same_nulls = self.null_embeddings.iter().all(|nulls| nulls.old == nulls.new);
        let same_counts = self.counts.old == self.counts.new;
        self.verdict = match (&self.fault, same_rows && same_nulls && same_counts) {
            // A difference that was found stands, whatever else could not be looked at.
            (_, false) if self.counts.old.is_some() && self.counts.new.is_some() => Verdict::Differ,
            (Some(_), _) => Verdict::NotCompared,
            (None, same) if !same || !self.columns_lost.is_empty() => Verdict::Differ,
            (None, _) => Verdict::Equal,
        };
    }

    /// What differs, in a few words.
    #[must_use]
    pub fn said(&self) -> String {
        let mut parts = Vec::new();
        if let Some(rows) = &self.rows {
            let kinds =
                [(rows.missing, "missing"), (rows.extra, "extra"), (rows.changed, "changed")];
            parts.extend(
                kinds.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")),
            );
            if rows.keyless_differ {
                parts.push("rows differ (no key names them)".to_owned());
            }
            if rows.is_cut {
                parts.push("and perhaps more".to_owned());
            }
            if rows.settled > 0 {
                parts.push(format!("{} settled meanwhile", rows.settled));
            }
        }
        for nulls in self.null_embeddings.iter().filter(|nulls| nulls.old + nulls.new > 0) {
            parts.push(format!("{} NULL: {} / {}", nulls.column, nulls.old, nulls.new));
        }
        if !self.columns_lost.is_empty() {
            parts.push(format!("new lacks {}", self.columns_lost.join(", ")));
        }
        parts.extend(self.fault.clone());
        parts.extend(self.notes.iter().cloned());
        parts.join("; ")
    }

    /// One row of the table that people read: old, new, both counts, the difference, the verdict, what else.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        vec![
            if self.old.is_empty() { "-".to_owned() } else { self.old.join(" + ") },
            self.new.clone(),
            number(self.counts.old),
            number(self.counts.new),
            difference(self.counts),
            self.verdict.as_str().to_owned(),
            self.said(),
        ]
    }

    /// Up to `most` of its differences, a line each.
    #[must_use]
    pub fn listed(&self, most: usize) -> Vec<String> {
        let Some(rows) = &self.rows else { return Vec::new() };
        let mut lines: Vec<String> = rows
            .differences
            .iter()
            .take(most)
            .map(|found| {
                let word = match found.kind {
                    Kind::Missing => "missing on new",
                    Kind::Extra => "extra on new",
                    Kind::Changed => "changed",
                };
                let pairs = rows.key.iter().zip(&found.key);
                let key = pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                let columns = match found.columns.as_slice() {
                    [] => String::new(),
                    columns => format!(": {}", columns.join(", ")),
                };
                format!("{word}  {}{columns}", key.join(" "))
            })
            .collect();
        if rows.differences.len() > most {
            lines.push(format!("… {} more (--show, --json)", rows.differences.len() - most));
        }
        lines
    }
}

/// The headings of [`Table::cells`].
pub const TABLE_HEADINGS: [&str; 7] =
    ["OLD", "NEW", "ROWS OLD", "ROWS NEW", "DIFFERENCE", "VERDICT", "WHAT"];

/// The headings of [`Bucket::cells`].
pub const BUCKET_HEADINGS: [&str; 7] =
    ["BUCKET OLD", "NEW", "OBJECTS OLD", "OBJECTS NEW", "DIFFERENCE", "VERDICT", "WHAT"];

impl Bucket {
    /// Sets the verdict by the counts, unless it stands already.
    pub fn judge(&mut self) {
        let known = self.objects.old.is_some() && self.objects.new.is_some();
        let both = self.bytes.old.is_some() && self.bytes.new.is_some();
        let same_bytes = !both || self.bytes.old == self.bytes.new;
        self.verdict = match self.verdict {
            Verdict::Owned => Verdict::Owned,
            _ if self.is_missing => Verdict::Differ,
            _ if !known => Verdict::NotCompared,
            _ if self.objects.old == self.objects.new && same_bytes => Verdict::Equal,
            _ => Verdict::Differ,
        };
    }

    /// One row of the table that people read.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let (Some(old), Some(new)) = (self.bytes.old, self.bytes.new)
            && old != new
        {
            said.push(format!("bytes: {old} / {new}"));
        }
        said.extend(self.note.clone());
        vec![
            self.old.clone(),
            self.new.clone(),
            number(self.objects.old),
            number(self.objects.new),
            difference(self.objects),
            self.verdict.as_str().to_owned(),
            said.join("; "),
        ]
    }
}

impl Report {
    /// Sets the verdict: the worst of all. Nothing compared at all is no agreement.
    pub fn judge(&mut self) {
        let verdicts = self.tables.iter().map(|table| table.verdict);
        let all = verdicts.chain(self.buckets.iter().map(|bucket| bucket.verdict));
        let worst = all.filter(|verdict| *verdict != Verdict::Owned).max();
        self.verdict = match (self.tables.is_empty(), worst) {
            (true, _) | (false, None) => Verdict::NotCompared,
            (false, Some(worst)) => worst,
        };
    }

    /// The last line: what holds.
    #[must_use]
    pub fn sentence(&self) -> String {
        let of = |verdict| {
            let tables = self.tables.iter().filter(|table| table.verdict == verdict).count();
            let buckets = self.buckets.iter().filter(|bucket| bucket.verdict == verdict).count();
            (tables, buckets)
        };
        let said = |(tables, buckets)| match buckets {
            0 => plural(tables, "table"),
            _ => format!("{} and {}", plural(tables, "table"), plural(buckets, "bucket")),
        };
        let what = match self.rows.as_str() {
            "counts" => "row counts".to_owned(),
            "all" => "every row".to_owned(),
            some => format!("a sample of {some} rows for each table"),
        };
        let counted = self.tables.iter().filter(|table| table.is_only_counted).count();
        let what = match counted {
            0 => what,
            n => format!("{what}, {} by its count alone", plural(n, "table")),
        };
        match self.verdict {
            Verdict::Equal | Verdict::Owned => {
                format!("equal: {} by {what}", said(of(Verdict::Equal)))
            }
            _ if self.tables.is_empty() => "nothing was compared: no table was found".to_owned(),
            _ => format!(
                "{} differ, {} could not be compared, {} equal by {what}",
                said(of(Verdict::Differ)),
                said(of(Verdict::NotCompared)),
                said(of(Verdict::Equal))
            ),
        }
    }

    /// The report as Markdown, with up to `most` differences of each table.
    #[must_use]
    pub fn markdown(&self, most: usize) -> String {
        let mut text = "# cutover verify\n\n".to_owned();
        let seed = self.seed.as_deref().map_or_else(String::new, |seed| format!(", seed `{seed}`"));
        // Writing to a text can't fail.
        write!(
            text,
            "**{}**\n\nThrough: {}. Rows: {}{seed}. Took {:.1} s{}.\n",
            escaped(&self.sentence()),
            self.through,
            self.rows,
            self.seconds,
            if self.resumed { " since it was taken up again" } else { "" }
        )
        .ok();
        for warning in &self.warnings {
            write!(text, "\n- {}", escaped(warning)).ok();
        }
        text.push('\n');
        table(&mut text, &TABLE_HEADINGS, self.tables.iter().map(Table::cells));
        if !self.buckets.is_empty() {
            table(&mut text, &BUCKET_HEADINGS, self.buckets.iter().map(Bucket::cells));
        }
        for found in &self.tables {
            let lines = found.listed(most);
            if !lines.is_empty() {
                write!(text, "\n## {}\n\n", escaped(&found.new)).ok();
                for line in lines {
                    writeln!(text, "- {}", escaped(&line)).ok();
                }
            }
        }
        text
    }
}

fn table(text: &mut String, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push('\n');
    text.push_str(&line(headings.iter().map(|heading| heading.to_lowercase()).collect()));
    text.push_str(&line(headings.iter().map(|_| "---".to_owned()).collect()));
    for row in rows {
        text.push_str(&line(row.iter().map(|cell| escaped(cell)).collect()));
    }
}

/// Text that Markdown shows as it is: keys are users' text.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' | '!' => {
                shown.push('\\');
                shown.push(c);
            }
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// New less old, with its sign.
fn difference(counts: Pair<Option<u64>>) -> String {
    match (counts.old, counts.new) {
        (Some(old), Some(new)) if old == new => "0".to_owned(),
        (Some(old), Some(new)) if new > old => format!("+{}", new - old),
        (Some(old), Some(new)) => format!("-{}", old - new),
        _ => "-".to_owned(),
    }
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(old: Option<u64>, new: Option<u64>) -> Table {
        let mut table = Table {
            old: vec!["public.orders".into()],
            new: "shop.orders".into(),
            counts: Pair { old, new },
            ..Table::default()
        };
        table.judge();
        table
    }

    fn with_rows(mut table: Table, differences: Vec<Difference>) -> Table {
        let mut rows = Rows { key: vec!["id".into()], differences, ..Rows::default() };
        rows.counted();
        table.rows = Some(rows);
        table.judge();
        table
    }

    fn difference_of(kind: Kind, key: &str, columns: &[&str]) -> Difference {
        let columns = columns.iter().map(ToString::to_string).collect();
        Difference { kind, key: vec![key.into()], columns }
    }

    #[test]
    fn a_table_is_equal_only_if_all_of_it_is() {
        let equal = || table(Some(3), Some(3));
        let changed = |change: fn(&mut Table)| {
            let mut table = equal();
            change(&mut table);
            table.judge();
            table.verdict
        };
        assert_eq!(equal().verdict, Verdict::Equal);
        assert_eq!(table(Some(3), Some(2)).verdict, Verdict::Differ);
        let nulls = |t: &mut Table| {
            t.null_embeddings = vec![Nulls { column: "e".into(), old: 0, new: 1 }];
        };
        assert_eq!(changed(nulls), Verdict::Differ);
        assert_eq!(changed(|t| t.columns_lost = vec!["a".into()]), Verdict::Differ);
        assert_eq!(changed(|t| t.columns_added = vec!["a".into()]), Verdict::Equal);
        assert_eq!(changed(|t| t.fault = Some("gone".into())), Verdict::NotCompared);
        assert_eq!(
            changed(|t| t.rows = Some(Rows { is_cut: true, ..Rows::default() })),
            Verdict::Differ
        );
        let keyless = |t: &mut Table| {
            t.rows = Some(Rows { keyless_differ: true, ..Rows::default() });
        };
        assert_eq!(changed(keyless), Verdict::Differ);
        let fault_and_difference = |t: &mut Table| {
            t.fault = Some("stopped".into());
            t.counts.new = Some(9);
        };
        assert_eq!(changed(fault_and_difference), Verdict::Differ);
        let unanswered = |t: &mut Table| {
            t.fault = Some("new: 404".into());
            t.counts.new = None;
        };
        assert_eq!(changed(unanswered), Verdict::NotCompared);
    }

    #[test]
    fn the_worst_verdict_is_the_reports() {
        let report = |tables: Vec<Table>, buckets: Vec<Bucket>| {
            let mut report = Report { tables, buckets, rows: "counts".into(), ..Report::default() };
            report.judge();
            (report.verdict, report.sentence())
        };
        let equal = table(Some(1), Some(1));
        let (verdict, sentence) = report(vec![equal.clone()], vec![]);
        assert_eq!((verdict, sentence.as_str()), (Verdict::Equal, "equal: 1 table by row counts"));
        let mut faulty = table(None, Some(1));
        faulty.fault = Some("old: gone".into());
        faulty.judge();
        let tables = vec![equal.clone(), table(Some(1), Some(2)), faulty];
        let (verdict, sentence) = report(tables, vec![]);
        assert_eq!(verdict, Verdict::NotCompared);
        assert_eq!(
            sentence,
            "1 table differ, 1 table could not be compared, 1 table equal by row counts"
        );
        let only_counted = Table { is_only_counted: true, ..equal.clone() };
        let (_, sentence) = report(vec![equal.clone(), only_counted], vec![]);
        assert!(sentence.ends_with("by row counts, 1 table by its count alone"), "{sentence}");
        assert_eq!(report(vec![], vec![]).0, Verdict::NotCompared, "nothing is no agreement");
        let owned = Bucket { verdict: Verdict::Owned, ..Bucket::default() };
        assert_eq!(report(vec![equal], vec![owned]).0, Verdict::Equal);
    }

    #[test]
    fn buckets_agree_by_objects_and_by_bytes_where_both_say_them() {
        let verdict = |objects: [Option<u64>; 2], bytes: [Option<u64>; 2]| {
            let pair = |[old, new]: [Option<u64>; 2]| Pair { old, new };
            let mut bucket =
                Bucket { objects: pair(objects), bytes: pair(bytes), ..Bucket::default() };
            bucket.judge();
            bucket.verdict
        };
        assert_eq!(verdict([Some(1); 2], [Some(5); 2]), Verdict::Equal);
        assert_eq!(verdict([Some(1); 2], [Some(5), Some(6)]), Verdict::Differ);
        assert_eq!(verdict([Some(1); 2], [None, Some(6)]), Verdict::Equal);
        assert_eq!(verdict([Some(1), Some(2)], [None; 2]), Verdict::Differ);
        assert_eq!(verdict([Some(1), None], [None; 2]), Verdict::NotCompared);
        let mut missing = Bucket { is_missing: true, ..Bucket::default() };
        missing.judge();
        assert_eq!(missing.verdict, Verdict::Differ, "nobody can upload into it");
    }

    #[test]
    fn markdown_shows_users_text_as_text() {
        let found = with_rows(
            table(Some(2), Some(2)),
            vec![
                difference_of(Kind::Missing, "a|b\n# c", &[]),
                difference_of(Kind::Changed, "<img src=x>", &["title", "meta"]),
            ],
        );
        assert_eq!(found.said(), "1 missing, 1 changed".replace(", ", "; "));
        assert_eq!(found.listed(1), ["missing on new  id=a|b\n# c", "… 1 more (--show, --json)"]);
        let mut report = Report { tables: vec![found], rows: "all".into(), ..Report::default() };
        report.judge();
        let text = report.markdown(20);
        for part in [
            "- missing on new  id=a\\|b \\# c\n",
            "- changed  id=\\<img src=x\\>: title, meta\n",
            "| public.orders | shop.orders | 2 | 2 | 0 | differ | 1 missing; 1 changed |",
            "## shop.orders\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
