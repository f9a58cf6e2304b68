//! The reasons why a filter is refused.
use crate::{
    host::resolve::ResolveError,
    text::{beginning, one_line},
};
use std::ops::Range;

/// Characters of an expression that an error shows.
const SHOWN: usize = 200;

/// The reason why a filter is refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A word at which the expression stops making sense.
    #[error("filter \"{}\": {}: {message}", beginning(.expression, SHOWN), word(.expression, .place))]
    At {
        /// The expression.
        expression: String,
        /// Position of the word in it, in bytes; empty at the end.
        place: Range<usize>,
        /// The fault, and what would be right.
        message: String,
    },
    /// A name cannot be looked up.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The program would exceed the kernel's limit (BPF_MAXINSNS).
    #[error(
        "the filter is too complex: it needs {instructions} instructions, and the kernel takes {limit}; use fewer \
         hosts and ports, or nets and port ranges"
    )]
    TooComplex {
        /// Instructions that the program would have.
        instructions: usize,
        /// Maximum instructions.
        limit: usize,
    },
    /// The frames of the file have a format that the filter does not know.
    #[error(
        "filter \"{}\": can't be applied to frames of link type {number}; leave it out to see them",
        beginning(.expression, SHOWN)
    )]
    LinkType {
        /// The expression.
        expression: String,
        /// The link type's number in capture files.
        number: u16,
    },
}

/// A fault and its place in the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub place: Range<usize>,
    pub message: String,
}

impl Fault {
    pub(super) fn new(place: &Range<usize>, message: impl Into<String>) -> Fault {
        Fault { place: place.clone(), message: message.into() }
    }

    pub(super) fn within(self, expression: &str) -> FilterError {
        // Messages quote words of the expression.
        let message = one_line(&self.message);
        FilterError::At { expression: expression.to_owned(), place: self.place, message }
    }
}

fn word(expression: &str, place: &Range<usize>) -> String {
    match expression.get(place.clone()).filter(|word| !word.is_empty()) {
        Some(word) => format!("at \"{}\"", beginning(word, SHOWN / 2)),
        None => "at its end".to_owned(),
    }
}
