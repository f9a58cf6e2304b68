//! The place that JSON objects are written to: standard error, a file, or a descriptor that netkat was started with.
use super::{Error, Failure};
use crate::{
    json::{Framed, Schema},
    stdio::{Writer, stderr},
};
use serde::Serialize;
use std::{
    io::{self, Write},
    path::Path,
};

/// An open destination, with the first error of writing to it.
#[derive(Debug)]
pub(super) struct Destination {
    place: Place,
    error: Option<Error>,
}

#[derive(Debug)]
enum Place {
    Stderr,
    File { file: Writer, name: String },
}

impl Destination {
    /// Opens a file, or standard error. A FIFO waits for its reader. The file `-` is standard output, a number the
    /// descriptor.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open(file: Option<&Path>) -> Result<Destination, Failure> {
        let place = match file {
            None => Place::Stderr,
            Some(path) => {
                let name = path.display().to_string();
                match Writer::create(path, false) {
                    Ok(file) => Place::File { file, name },
                    Err(error) => return Err(Error::Report { to: name, error }.into()),
                }
            }
        };
        Ok(Destination { place, error: None })
    }

    /// Writes an object with its frame. The first error is kept.
    pub fn write(&mut self, schema: Schema, body: &impl Serialize) {
        if self.error.is_some() {
            return;
        }
        let written = Framed::now(schema, body).line().and_then(|line| self.place.write_line(line));
        self.error = written.err().map(|error| Error::Report { to: self.place.name().to_owned(), error });
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// The first error of writing.
    pub fn finish(self) -> Result<(), Failure> {
        self.error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Place {
    fn write_line(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        match self {
            Place::Stderr => stderr::write(&line),
            Place::File { file, .. } => file.write_all(line.as_bytes()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Place::Stderr => "standard error",
            Place::File { name, .. } => name,
        }
    }
}
