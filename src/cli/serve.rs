//! `cutover serve`: runs the proxy until it is told to stop.

use std::io;
use std::process::ExitCode;

use super::screen::Screen;
use crate::app::Share;
use crate::config::live::Sources;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Listen beside a running proxy on the same addresses, to take its place: stop the other one when this one serves
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(arguments: &Arguments, sources: Sources) -> ExitCode {
    let share = if arguments.take_over { Share::Other } else { Share::Nobody };
    match crate::app::serve(sources, share) {
        Ok(exit) => exit,
        Err(error) => {
            let (mut out, mut err) = (io::stderr(), io::stderr());
            // Everything on stderr: stdout of a service is nobody's report.
            let mut screen = Screen {
                out: &mut out,
                err: &mut err,
                json: false,
                terminal: false,
                colour: false,
            };
            ExitCode::from(super::report(&error, &mut screen) as u8)
        }
    }
}
