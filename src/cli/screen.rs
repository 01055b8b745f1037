//! What the operator sees: reports on stdout, everything else on stderr. With `--json`, stdout carries JSON alone.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::config::fault::Faults;

/// Where a command writes, and how.
pub(super) struct Screen<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) err: &'a mut dyn Write,
    /// `--json`
    pub(super) json: bool,
    /// Whether stdout is a terminal.
    pub(super) terminal: bool,
    /// Whether colours are wanted: a terminal, and no `NO_COLOR`.
    pub(super) colour: bool,
}

/// Says how good or bad something is; never the only carrier of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

impl Screen<'_> {
    /// One JSON document on one line.
    pub(super) fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        writeln!(self.out, "{text}")
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", printable(text))
    }

    /// Names and values in two columns.
    pub(super) fn pairs(&mut self, pairs: &[(&str, String, Tone)]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        for (name, value, tone) in pairs {
            let value = self.paint(&printable(value), *tone);
            writeln!(self.out, "{name:width$}  {value}")?;
        }
        Ok(())
    }

    /// Rows under headings; the last column takes what it needs.
    pub(super) fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(i, heading)| {
                let cells =
                    rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
                cells.max().unwrap_or_default().max(heading.len())
            })
            .collect();
        let text = |row: &[String]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
        writeln!(self.out, "{}", self.paint(&text(&headings), Tone::Plain))?;
        for row in &rows {
            writeln!(self.out, "{}", text(row))?;
        }
        Ok(())
    }

    /// A sentence for people, on stderr, with or without `--json`.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.err, "{}", printable(text))
    }

    /// An error that has no code of its own.
    pub(super) fn error(&mut self, message: &str) -> io::Result<()> {
        if self.json {
            self.value(&json!({ "code": null, "message": message, "details": null, "hint": null }))
        } else {
            self.note(&format!("error: {message}"))
        }
    }

    /// Every fault, as `check` shows them.
    pub(super) fn faults(&mut self, faults: &Faults) -> io::Result<()> {
        if self.json {
            return self.value(&json!({ "ok": false, "faults": faults, "warnings": [] }));
        }
        let rows: Vec<Vec<String>> = faults
            .0
            .iter()
            .map(|fault| {
                let fault = fault.clone();
                vec![fault.source, fault.key, fault.found, fault.allowed]
            })
            .collect();
        self.table(&["SOURCE", "KEY", "FOUND", "ALLOWED"], &rows)?;
        let count = match rows.len() {
            1 => "1 fault".to_owned(),
            n => format!("{n} faults"),
        };
        let count = self.paint(&count, Tone::Bad);
        writeln!(self.out, "{count}")
    }

    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text of a file or of the network, without what could move the cursor or colour the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
