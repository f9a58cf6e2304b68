//! The reasons why the front of a stream is no header.
use super::{Version, Versions};

/// The reason why the front of a stream is no header that the receiver accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes are those of something else; holds the first of them, escaped.
    #[error("no PROXY protocol header: the data begins with \"{0}\"")]
    Absent(String),
    /// A header of the other version.
    #[error("a PROXY protocol header of version {found}, where only version {} is accepted", accepted_words(*accepted))]
    NotAccepted {
        /// The header's version.
        found: Version,
        /// The versions that are accepted.
        accepted: Versions,
    },
    /// Longer than any header of that version may be.
    #[error("the PROXY protocol header of version {version} is too long: more than {limit} bytes")]
    TooLong {
        /// The header's version.
        version: Version,
        /// Maximum length, in bytes.
        limit: usize,
    },
    /// Not as the specification has it.
    #[error("malformed PROXY protocol header of version {version}: {fault}")]
    Malformed {
        /// The header's version.
        version: Version,
        /// The fault in words, without control characters.
        fault: String,
    },
}

fn accepted_words(accepted: Versions) -> &'static str {
    match accepted {
        Versions::Only(Version::One) => "1",
        Versions::Only(Version::Two) => "2",
        Versions::Both => "1 or 2",
    }
}

/// Maximum bytes of hostile data that a message quotes.
const QUOTED: usize = 24;

/// Returns the first bytes of `data` as printable ASCII.
pub(super) fn quote(data: &[u8]) -> String {
    let (beginning, rest) = data.split_at(data.len().min(QUOTED));
    let ellipsis = if rest.is_empty() { "" } else { "..." };
    format!("{}{ellipsis}", beginning.escape_ascii())
}
