//! The documents that --generate prints, all made from the parser's own definitions.
use super::{Cli, completions, man_page};
use clap::{CommandFactory, ValueEnum};
use std::io::{self, Write};

/// A document that --generate prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    Man,
    Bash,
    Zsh,
    Fish,
}

impl Document {
    /// Writes the document.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let command = Cli::command();
        let text = match self {
            Document::Man => man_page::page(&command),
            Document::Bash => completions::bash(&command),
            Document::Zsh => completions::zsh(&command),
            Document::Fish => completions::fish(&command),
        };
        out.write_all(text.as_bytes())
    }
}
