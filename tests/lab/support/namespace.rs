//! Namespaces as the lab uses them: programs with deadlines run inside.
#[path = "../../support/namespace.rs"]
mod builder;

use crate::support::process::{Command, Output};

pub use builder::Namespace;

impl Namespace {
    /// Prepares a program that will run in this namespace.
    pub fn command(&self, program: &str) -> Command {
        Command::inside(&self.file(), program)
    }

    /// Runs a program with arguments that hold no spaces. Panics unless it succeeds.
    pub fn run(&self, line: &str) -> Output {
        self.words(line).succeed()
    }

    /// Prepares the command that [`Namespace::run`] would run.
    pub fn words(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        self.command(words.next().expect("a program")).args(words)
    }
}
