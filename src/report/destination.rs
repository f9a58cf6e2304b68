//! The place that JSON objects are written to: standard error, standard output, a file, or a descriptor that netkat was
//! started with.
use super::{Error, Failure};
use crate::{
    json::{Framed, Schema},
    stdio::{STANDARD, Writer, stderr},
};
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
    os::fd::RawFd,
    path::{Path, PathBuf},
};

/// A place, as --json names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportPlace {
    /// Standard error: --json and --json=2.
    Stderr,
    /// Standard output: --json=- and --json=1.
    Stdout,
    /// A descriptor: --json=3.
    Descriptor(RawFd),
    /// A file, or a FIFO, which waits for its reader.
    File(PathBuf),
}

impl ReportPlace {
    /// Reads the value of --json; `None` where it has none.
    pub(crate) fn new(value: Option<&Path>) -> ReportPlace {
        let Some(path) = value else { return ReportPlace::Stderr };
        let digits = path.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|text| text.parse().ok()) {
            _ if path == Path::new(STANDARD) => ReportPlace::Stdout,
            Some(1) => ReportPlace::Stdout,
            Some(2) => ReportPlace::Stderr,
            Some(number) => ReportPlace::Descriptor(number),
            None => ReportPlace::File(path.to_owned()),
        }
    }

    /// Returns the path by which the place can be looked at; `None` for the standard streams.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            ReportPlace::Stderr | ReportPlace::Stdout => None,
            ReportPlace::Descriptor(number) => Some(format!("/proc/self/fd/{number}").into()),
            ReportPlace::File(path) => Some(path.clone()),
        }
    }
}

impl fmt::Display for ReportPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReportPlace::Stderr => f.write_str("standard error"),
            ReportPlace::Stdout => f.write_str("standard output"),
            ReportPlace::Descriptor(number) => {
                write!(f, "descriptor {number} (open it as {number}>FILE; a file of that name is ./{number})")
            }
            ReportPlace::File(path) => path.display().fmt(f),
        }
    }
}

/// An open place, with the first error of writing to it.
#[derive(Debug)]
pub(super) struct Destination {
    place: ReportPlace,
    /// `None` for standard error, which never waits.
    writer: Option<Writer>,
    error: Option<io::Error>,
}

impl Destination {
    /// Opens a place.
    ///
    /// # Errors
    /// Those of opening it.
    pub(crate) fn open(place: ReportPlace) -> Result<Destination, Failure> {
        let writer = match &place {
            ReportPlace::Stderr => Ok(None),
            ReportPlace::Stdout => Writer::output().map(Some),
            ReportPlace::Descriptor(number) => Writer::inherited(*number).map(Some),
            ReportPlace::File(path) => Writer::create(path, false).map(Some),
        };
        match writer {
            Ok(writer) => Ok(Destination { place, writer, error: None }),
            Err(error) => Err(Error::Report { to: place.to_string(), error }.into()),
        }
    }

    pub(crate) fn place(&self) -> &ReportPlace {
        &self.place
    }

    /// Writes an object with its frame. After an error nothing more is written.
    pub(crate) fn write(&mut self, schema: Schema, body: &impl Serialize) {
        if self.error.is_none() {
            self.error = Framed::now(schema, body).line().and_then(|line| self.write_line(line)).err();
        }
    }

    fn write_line(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        match &mut self.writer {
            None => stderr::write(&line),
            Some(writer) => writer.write_all(line.as_bytes()),
        }
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// The first error of writing.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        if self.place == ReportPlace::Stderr && self.error.is_none() {
            stderr::finish();
            self.error = (!stderr::is_delivered()).then(|| io::Error::other("it took not all of it"));
        }
        match self.error {
            None => Ok(()),
            Some(error) => Err(Error::Report { to: self.place.to_string(), error }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_descriptor_and_a_path_a_file() {
        let place = |value: &str| ReportPlace::new(Some(Path::new(value)));
        assert_eq!(ReportPlace::new(None), ReportPlace::Stderr);
        assert_eq!([place("-"), place("1")], [ReportPlace::Stdout, ReportPlace::Stdout]);
        assert_eq!([place("2"), place("3")], [ReportPlace::Stderr, ReportPlace::Descriptor(3)]);
        for file in ["./3", "3a", "-1", "+3", "99999999999"] {
            assert_eq!(place(file), ReportPlace::File(file.into()), "{file}");
        }
    }
}
