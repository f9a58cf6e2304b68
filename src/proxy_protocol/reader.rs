//! A reader that takes a header from the front of a stream, in however many pieces the stream comes.
use super::{
    Header, HeaderError, Version, Versions, binary_form,
    error::quote,
    text_form::{self, END},
};

/// The first characters of version 1.
const TEXT: &[u8] = b"PROXY";

/// A reader of one header.
#[derive(Clone, Debug)]
pub struct HeaderReader {
    accepted: Versions,
    bytes: Vec<u8>,
}

/// What the bytes so far are.
enum Progress {
    /// The beginning of a header, of which at least so many bytes are missing.
    Missing(usize),
    Complete(Version),
}

impl HeaderReader {
    /// Returns a reader that accepts these versions.
    pub fn new(accepted: Versions) -> HeaderReader {
        HeaderReader { accepted, bytes: Vec::new() }
    }

    /// Returns the number of bytes taken so far.
    pub fn taken(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the header's bytes from the front of `data`. Returns how many it took, and the header once that is
    /// complete; what follows it is left. Do not call it again after that, or after an error.
    ///
    /// # Errors
    /// As soon as the bytes can't become a header that is accepted: every [`HeaderError`].
    pub fn take(&mut self, data: &[u8]) -> Result<(usize, Option<Header>), HeaderError> {
        let mut rest = data;
        loop {
            let missing = match self.progress(rest)? {
                Progress::Complete(version) => {
                    let header = match version {
                        Version::One => text_form::parse(&self.bytes)?,
                        Version::Two => binary_form::parse(&self.bytes)?,
                    };
                    return Ok((data.len() - rest.len(), Some(header)));
                }
                Progress::Missing(missing) => missing,
            };
            if rest.is_empty() {
                return Ok((data.len(), None));
            }
            let (piece, behind) = rest.split_at(missing.min(rest.len()));
            self.bytes.extend_from_slice(piece);
            rest = behind;
        }
    }

    /// Returns what the bytes so far are; `rest` follows them.
    fn progress(&self, rest: &[u8]) -> Result<Progress, HeaderError> {
        let bytes = self.bytes.as_slice();
        if let Some(missing) = missing_of(TEXT, bytes) {
            return match missing {
                0 => self.checked(Version::One).and_then(|()| text_progress(bytes)),
                missing => Ok(Progress::Missing(missing)),
            };
        }
        match missing_of(&binary_form::SIGNATURE, bytes) {
            Some(0) => {
                self.checked(Version::Two)?;
                Ok(match binary_form::length(bytes)?.saturating_sub(bytes.len()) {
                    0 => Progress::Complete(Version::Two),
                    missing => Progress::Missing(missing),
                })
            }
            Some(missing) => Ok(Progress::Missing(missing)),
            None => Err(HeaderError::Absent(quote(&[bytes, rest].concat()))),
        }
    }

    fn checked(&self, version: Version) -> Result<(), HeaderError> {
        match self.accepted.accept(version) {
            true => Ok(()),
            false => Err(HeaderError::NotAccepted { found: version, accepted: self.accepted }),
        }
    }
}

/// Returns how many bytes of `beginning` are missing; `None` if the bytes differ from it.
fn missing_of(beginning: &[u8], bytes: &[u8]) -> Option<usize> {
    let common = beginning.len().min(bytes.len());
    (beginning[..common] == bytes[..common]).then(|| beginning.len() - common)
}

/// Looks for the end of the line, a byte at a time: nothing else tells where it is.
fn text_progress(bytes: &[u8]) -> Result<Progress, HeaderError> {
    if bytes.ends_with(END) {
        return Ok(Progress::Complete(Version::One));
    }
    text_form::check_beginning(bytes)?;
    Ok(Progress::Missing(1))
}
