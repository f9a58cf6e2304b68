use netkat::{
    cli::Cli,
    kernel,
    plan::Plan,
    report::{Report, exit, logging},
    stdio::stderr,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    stderr::open();
    stderr::report_panics();
    kernel::prepare_signals();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    if let Some(document) = cli.generate {
        return exit::print(|out| document.write(out));
    }
    logging::init(cli.verbose);
    let mut report =
        match cli.json.as_ref().filter(|_| !cli.watches_only()).map(|file| Report::to(file.as_deref())) {
            None => Report::default(),
            Some(Ok(report)) => report,
            Some(Err(error)) => return exit::report(&Err(error.into()), cli.exit_verdict, None),
        };
    let result = run(&cli, &mut report);
    exit::report(&result, cli.exit_verdict, Some(report))
}

fn run(cli: &Cli, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::new(cli)?;
    plan.run(report)?;
    Ok(())
}
