use netkat::{
    cli::Cli,
    exit::{self, Json},
    mode::Report,
    plan::Plan,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Some(document) = cli.generate {
        return exit::printed(document.write(&mut std::io::stdout().lock()));
    }
    netkat::logging::init(cli.verbose);
    let json = cli.json.as_ref().filter(|_| !cli.watches_only()).map(|path| Json::open(path.as_deref()));
    let mut report = Report::default();
    let result = run(&cli, &mut report);
    exit::report(&result, cli.exit_verdict, json.map(|json| (report, json)))
}

fn run(cli: &Cli, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::new(cli)?;
    plan.run(report)?;
    Ok(())
}
