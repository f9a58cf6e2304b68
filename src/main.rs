use clap::Parser;
use netkat::{cli::Cli, exit, plan::Plan};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    netkat::logging::init(cli.verbose);
    exit::report(run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let plan = Plan::new(cli)?;
    plan.run()?;
    Ok(())
}
