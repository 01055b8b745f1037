//! `cutover serve`: runs the proxy until it is told to stop.

use std::io;
use std::process::ExitCode;

use super::screen::Screen;
use crate::config::live::Sources;

pub(super) fn run(sources: Sources) -> ExitCode {
    match crate::app::serve(sources) {
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
