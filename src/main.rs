//! The program: parses the flags, starts the log, runs the plan, and exits.
use netkat::{
    cli::{self, Cli, NotRun},
    kernel,
    plan::Plan,
    report::{Failure, JsonReport, ReportPlace, exit, logging},
    stdio::stderr,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = kernel::serve_stand_in() {
        return status;
    }
    stderr::open();
    stderr::report_panics();
    kernel::prepare_signals();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(arguments.iter().cloned()) {
        Ok(cli) => cli,
        Err(NotRun::Print(text)) => return exit::print(|_| text.print()),
        Err(NotRun::Wrong(words)) => {
            return exit::usage(words, cli::report_wanted(&arguments));
        }
    };
    if let Some(document) = cli.generate {
        return exit::print(|out| document.write(out));
    }
    let place = cli.report_place();
    logging::init(cli.verbose, place == Some(ReportPlace::Stderr));
    let checked = Plan::check_outputs(&cli);
    let report = match place {
        // A file that is not fit for the report stays as it is.
        Some(_) if checked.is_err() => JsonReport::to(ReportPlace::Stderr),
        Some(place) => JsonReport::to(place),
        None => Ok(JsonReport::default()),
    };
    match report {
        Ok(mut report) => {
            let result = checked.and_then(|()| run(&cli, &mut report));
            exit::conclude(result, cli.exit_verdict, Some(report))
        }
        Err(failure) => exit::conclude(Err(failure), cli.exit_verdict, None),
    }
}

fn run(cli: &Cli, report: &mut JsonReport) -> Result<(), Failure> {
    Plan::new(cli, report)?.run(report)
}
