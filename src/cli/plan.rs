//! `cutover plan`: the SQL that makes new what the map says, printed, written to files, or applied.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokio::runtime;
use tokio_postgres::Client;

use super::screen::{Screen, Tone};
use super::{Context, Exit};
use crate::checks::catalogue;
use crate::checks::database::connect;
use crate::checks::plan::{
    ApplyError, File, Limits, Options, Plan, apply, is_same_database, missing_extensions, pending,
    plan,
};
use crate::config::{self, Database, Report};
use crate::secret::Secret;
use crate::side::Side;

/// What to do with the plan. Without a choice it is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write the files into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "apply")]
    out: Option<PathBuf>,
    /// Replace files in --out that differ
    #[arg(long, requires = "out")]
    force: bool,
    /// Apply it to this database; without a URL to projects.new.database_url (SUPABASE_DB_URL_NEW), which no list of processes shows
    #[arg(long, value_name = "DATABASE_URL", num_args = 0..=1, default_missing_value = "")]
    apply: Option<String>,
    /// With --apply: say what would change, and stop
    #[arg(long, requires = "apply", conflicts_with = "yes")]
    dry_run: bool,
    /// With --apply: don't ask
    #[arg(long, requires = "apply")]
    yes: bool,
    /// How many numbers of each sequence to leave to old
    #[arg(long, value_name = "N", default_value_t = 0)]
    sequence_gap: u32,
    /// One more schema to expose through REST; may be repeated
    #[arg(long, value_name = "SCHEMA")]
    expose: Vec<String>,
    /// Seconds that a statement waits for a lock
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    lock_timeout: u32,
    /// Seconds that a statement may run
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86400))]
    statement_timeout: u32,
}

impl Arguments {
    const fn limits(&self) -> Limits {
        Limits { lock_seconds: self.lock_timeout, statement_seconds: self.statement_timeout }
    }
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let report = config::check(&context.sources)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(planned(&arguments, &report, &mut context.screen))
}

async fn planned(
    arguments: &Arguments,
    report: &Report,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Exit> {
    let Some(database) = &report.databases[Side::Old] else {
        bail!(
            "projects.old.database_url is not set (SUPABASE_DB_URL_OLD): the plan is read from old's catalogue"
        );
    };
    let old = connect(database).await.context("old's database")?;
    let catalogue = catalogue::read(&old).await.context("old's database")?;
    let rewrite = &report.snapshot.rewrite;
    let options = Options {
        compat: rewrite.compat.clone(),
        sequence_gap: arguments.sequence_gap,
        expose: arguments.expose.clone(),
    };
    let plan = plan(&catalogue, &rewrite.map, &options);
    if !screen.json {
        tell(&plan, screen)?;
    }
    match (&arguments.apply, &arguments.out) {
        (Some(url), _) => {
            let new = connect(&target(url, report, screen)?).await.context("new's database")?;
            ensure!(
                !is_same_database(&old, &new).await?,
                "--apply leads to old's own database: nothing was changed"
            );
            applied(arguments, &plan, &new, screen).await
        }
        (None, Some(directory)) => written(arguments, &plan, directory, screen),
        (None, None) => printed(arguments, &plan, screen),
    }
}

/// What no SQL does, on stderr: stdout is the SQL's.
fn tell(plan: &Plan, screen: &mut Screen<'_>) -> io::Result<()> {
    for note in &plan.notes {
        screen.note(&format!("note: {note}"))?;
    }
    for finding in &plan.findings {
        let word = if finding.by_hand { "by hand" } else { "note" };
        screen.note(&format!("{word}: {finding}"))?;
    }
    Ok(())
}

fn target(url: &str, report: &Report, screen: &mut Screen<'_>) -> anyhow::Result<Database> {
    let configured = report.databases[Side::New].clone();
    if url.is_empty() {
        return configured.ok_or_else(|| {
            anyhow!("--apply without a URL needs projects.new.database_url (SUPABASE_DB_URL_NEW)")
        });
    }
    if url.contains('@') && url.split('@').next().is_some_and(|it| it.matches(':').count() > 1) {
        screen.note("note: a password among the arguments can be seen by everybody on this machine; SUPABASE_DB_URL_NEW and --apply without a URL avoid that")?;
    }
    Ok(Database { url: Secret::new(url), ca: configured.and_then(|it| it.ca) })
}

fn printed(arguments: &Arguments, plan: &Plan, screen: &mut Screen<'_>) -> anyhow::Result<Exit> {
    if screen.json {
        screen.value(&document(plan, |file| json!({ "sql": file.sql(arguments.limits()) })))?;
        return Ok(Exit::Done);
    }
    for file in &plan.files {
        writeln!(screen.out, "{}", file.sql(arguments.limits()))?;
    }
    Ok(Exit::Done)
}

fn document(plan: &Plan, more: impl Fn(&File) -> Value) -> Value {
    let files = plan.files.iter().map(|file| {
        let mut value = json!({
            "file": file.name,
            "title": file.title,
            "about": file.about,
            "by_hand": file.by_hand,
            "steps": file.steps.iter().map(|step| &step.does).collect::<Vec<_>>(),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more(file)) {
            value.extend(more);
        }
        value
    });
    json!({ "files": files.collect::<Vec<_>>(), "findings": plan.findings, "notes": plan.notes })
}

fn written(
    arguments: &Arguments,
    plan: &Plan,
    directory: &Path,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Exit> {
    let files = plan.files.iter().map(|file| {
        let path = directory.join(file.name);
        let text = file.sql(arguments.limits());
        let same = fs::read_to_string(&path).ok().map(|there| there == text);
        (file, path, text, same)
    });
    let files: Vec<_> = files.collect();
    let differ = files.iter().filter(|(_, path, _, same)| path.exists() && *same != Some(true));
    let differ: Vec<_> = differ.map(|(_, path, ..)| path.display().to_string()).collect();
    ensure!(
        differ.is_empty() || arguments.force,
        "there already, and different: {}; nothing was written; --force replaces them",
        differ.join(", ")
    );
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (_, path, text, same) in &files {
        if *same != Some(true) {
            fs::write(path, text).with_context(|| path.display().to_string())?;
        }
    }
    if screen.json {
        let path = |file: &File| json!({ "path": directory.join(file.name) });
        screen.value(&document(plan, path))?;
    } else {
        for (_, path, _, same) in &files {
            let word = if *same == Some(true) { "unchanged" } else { "written" };
            screen.line(&format!("{word}  {}", path.display()))?;
        }
    }
    Ok(Exit::Done)
}

async fn applied(
    arguments: &Arguments,
    plan: &Plan,
    new: &Client,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Exit> {
    let missing = missing_extensions(new, plan).await?;
    if !missing.is_empty() {
        screen.note(&format!("note: extensions of old that new lacks: {}", missing.join(", ")))?;
    }
    let todo = pending(new, &plan.files).await?;
    let total: usize = todo.iter().map(Vec::len).sum();
    if !screen.json {
        dry_run(arguments, plan, &todo, screen)?;
    }
    if arguments.dry_run {
        if screen.json {
            let files = plan.files.iter().zip(&todo).map(|(file, todo)| {
                json!({ "file": file.name, "pending": todo.len(), "steps": named(file, todo) })
            });
            let files: Vec<_> = files.collect();
            screen.value(&json!({ "files": files, "pending": total, "findings": plan.findings, "notes": plan.notes }))?;
        }
        return Ok(Exit::Done);
    }
    if !arguments.yes && !agreed(screen)? {
        screen.note("nothing was changed")?;
        return Ok(Exit::Error);
    }
    let mut done = Vec::new();
    for file in &plan.files {
        match apply(new, file, arguments.limits()).await {
            Ok(changed) => done.push((file.name, changed)),
            Err(error) => return failed(plan, &done, &error, screen),
        }
    }
    summary(plan, &done, None, screen)?;
    Ok(Exit::Done)
}

/// What is to do, by file; every step by its name if that is all that was asked for.
fn dry_run(
    arguments: &Arguments,
    plan: &Plan,
    todo: &[Vec<usize>],
    screen: &mut Screen<'_>,
) -> io::Result<()> {
    let rows = plan.files.iter().zip(todo).map(|(file, todo)| {
        let asked = file.steps.iter().filter(|step| step.is_counted()).count();
        let (count, done) = (todo.len(), asked - todo.len());
        vec![file.name.to_owned(), count.to_string(), done.to_string(), file.title.to_owned()]
    });
    let rows: Vec<_> = rows.collect();
    screen.table(&["FILE", "TO DO", "DONE", "WHAT"], &rows)?;
    if arguments.dry_run {
        for (file, todo) in plan.files.iter().zip(todo) {
            for name in named(file, todo) {
                screen.line(&format!("{}: {name}", file.name))?;
            }
        }
    }
    Ok(())
}

fn named<'f>(file: &'f File, todo: &[usize]) -> Vec<&'f str> {
    let steps = file.steps.iter().enumerate().filter(|(number, _)| todo.contains(number));
    steps.map(|(_, step)| step.does.as_str()).collect()
}

/// Asks on the terminal. Without one nobody can answer.
fn agreed(screen: &mut Screen<'_>) -> anyhow::Result<bool> {
    let input = io::stdin();
    ensure!(
        input.is_terminal() && !screen.json,
        "nothing was changed: there is no terminal to ask on; --yes applies it without asking, --dry-run only looks"
    );
    write!(screen.err, "Apply this to new's database? [y/N] ")?;
    screen.err.flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn failed(
    plan: &Plan,
    done: &[(&str, usize)],
    error: &ApplyError,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Exit> {
    summary(plan, done, Some(error), screen)?;
    if !screen.json {
        screen.error(&error.to_string())?;
    }
    Ok(Exit::Error)
}

fn summary(
    plan: &Plan,
    done: &[(&str, usize)],
    error: Option<&ApplyError>,
    screen: &mut Screen<'_>,
) -> io::Result<()> {
    let total: usize = done.iter().map(|it| it.1).sum();
    if screen.json {
        let files = done.iter().map(|(name, changed)| json!({ "file": name, "changed": changed }));
        let failed = error.map(|error| match error {
            ApplyError::Failed(failed) => json!(failed),
            ApplyError::Asked(message) => json!({ "message": message }),
        });
        return screen.value(&json!({
            "files": files.collect::<Vec<_>>(),
            "changed": total,
            "failed": failed,
            "findings": plan.findings,
            "notes": plan.notes,
        }));
    }
    let objects = if total == 1 { "object" } else { "objects" };
    let text = format!("changed {total} {objects} in {} of {} files", done.len(), plan.files.len());
    let tone = if error.is_some() { Tone::Warn } else { Tone::Good };
    let text = screen.paint(&text, tone);
    writeln!(screen.out, "{text}")
}
