//! The command line: one file per verb. Shell: reads arguments and the environment, writes to the terminal.
//!
//! Exit codes are a contract: 0 done, 1 error, 2 faults in the settings, 3 refused. A wrong argument is an
//! error (1), so that 2 always means the settings.

mod check;
mod client;
mod doctor;
mod environment;
mod explain;
mod plan;
mod ready;
mod rollout;
mod screen;
mod serve;
mod verify;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::fault::Faults;
use crate::config::live::Sources;
use screen::Screen;

/// Moves the live users of one Supabase project to another, one percentage at a time.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    /// Settings file [default: config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Report as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy
    Serve(serve::Arguments),
    /// Read and check every setting; list all faults (exit 2 if there are any)
    Check,
    /// Ask both projects whether they are ready; say what to do about each thing that is not
    Doctor(doctor::Arguments),
    /// Say which side serves a user, why, and at which percentage the user moves
    Explain(explain::Arguments),
    /// Write the SQL that moves new's tables and functions to where the map says (needs old's database URL)
    Plan(plan::Arguments),
    /// May the old project be switched off? Exit 0 if nothing that can be seen speaks against it
    Ready(ready::Arguments),
    /// Show or change the percentage, live
    #[command(subcommand)]
    Rollout(rollout::Verb),
    /// Compare the data of both projects: exit 0 if they agree, 1 if they differ or can't be compared
    Verify(verify::Arguments),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Done = 0,
    Error = 1,
    Faults = 2,
    Refused = 3,
}

/// What every verb is given.
struct Context<'a> {
    sources: Sources,
    screen: Screen<'a>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let environment = environment::read();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let cli = match parse(std::env::args_os(), &mut out, &mut err) {
        Ok(cli) => cli,
        Err(exit) => return ExitCode::from(exit as u8),
    };
    let sources = Sources { file: cli.config, environment };
    if let Verb::Serve(arguments) = cli.verb {
        // The log writes to stderr from its own thread for as long as the proxy lives: no lock is held here.
        drop((out, err));
        return serve::run(&arguments, sources);
    }
    let terminal = io::stdout().is_terminal();
    let plain = sources.environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let screen = Screen {
        out: &mut out,
        err: &mut err,
        json: cli.json,
        terminal,
        colour: terminal && !plain,
    };
    ExitCode::from(run(cli.verb, Context { sources, screen }) as u8)
}

fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Cli, Exit> {
    Cli::try_parse_from(arguments).map_err(|answer| {
        // Help and version are answers, not errors. A reader that is gone needs neither.
        if answer.use_stderr() {
            write!(err, "{answer}").ok();
            Exit::Error
        } else {
            write!(out, "{answer}").ok();
            Exit::Done
        }
    })
}

fn run(verb: Verb, mut context: Context<'_>) -> Exit {
    let ended = match verb {
        Verb::Serve(_) => Ok(Exit::Done),
        Verb::Check => check::run(&mut context),
        Verb::Doctor(arguments) => doctor::run(arguments, &mut context),
        Verb::Explain(arguments) => explain::run(arguments, &mut context),
        Verb::Plan(arguments) => plan::run(arguments, &mut context),
        Verb::Ready(arguments) => ready::run(&arguments, &mut context),
        Verb::Rollout(verb) => rollout::run(verb, &mut context),
        Verb::Verify(arguments) => verify::run(arguments, &mut context),
    };
    ended.unwrap_or_else(|error| report(&error, &mut context.screen))
}

/// Says what went wrong; faults keep their exit code wherever they were met.
fn report(error: &anyhow::Error, screen: &mut Screen<'_>) -> Exit {
    if let Some(faults) = error.downcast_ref::<Faults>() {
        // The terminal may be gone; the exit code still says it.
        screen.faults(faults).ok();
        return Exit::Faults;
    }
    let cause = error.downcast_ref::<io::Error>();
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    screen.error(&format!("{error:#}")).ok();
    Exit::Error
}

#[cfg(test)]
mod tests;
