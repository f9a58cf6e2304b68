use netkat::{cli::Cli, exit, plan::Plan};
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
    exit::report(&run(&cli), cli.exit_verdict)
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let plan = Plan::new(cli)?;
    plan.run()?;
    Ok(())
}
