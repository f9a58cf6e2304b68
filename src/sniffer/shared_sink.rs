//! A sink that the taps of one run share.
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use super::sink::{Sink, SinkError, SinkOptions};
use crate::stdio::stderr;

/// A handle of a sink that opens with the first link and outlives it: a run that opens several
/// links, one after the other, records them in one file. A failing sink closes; the links go on
/// without it.
#[derive(Clone, Default)]
pub struct SharedSink {
    options: SinkOptions,
    /// `None` before the first link, and after a failure.
    sink: Rc<RefCell<Option<Sink>>>,
    opened: Rc<Cell<bool>>,
}

impl SharedSink {
    /// Returns a sink that [`Tap::new`](super::tap::Tap::new) opens.
    pub(crate) fn new(options: SinkOptions) -> Self {
        SharedSink { options, ..SharedSink::default() }
    }

    /// Opens the sink with its text on stderr, unless the sink was opened before or has no outputs.
    ///
    /// # Errors
    /// As for [`SinkOptions::open`].
    pub(super) fn open(&self) -> Result<(), SinkError> {
        if self.options == SinkOptions::default() || self.opened.replace(true) {
            return Ok(());
        }
        *self.sink.borrow_mut() = Some(self.options.open(Box::new(stderr::Lines))?);
        Ok(())
    }

    /// Returns whether the sink is open.
    pub(super) fn is_open(&self) -> bool {
        self.sink.borrow().is_some()
    }

    /// Applies `write` to an open sink, and closes the sink on an error.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Sink) -> Result<T, SinkError>) -> Option<T> {
        let mut sink = self.sink.borrow_mut();
        match write(sink.as_mut()?) {
            Ok(value) => return Some(value),
            Err(SinkError::Closed) => {}
            Err(error) => log::warn!("{error}; no more packets are shown or recorded"),
        }
        *sink = None;
        None
    }
}

impl From<Sink> for SharedSink {
    fn from(sink: Sink) -> Self {
        let sink = Rc::new(RefCell::new(Some(sink)));
        SharedSink { options: SinkOptions::default(), sink, opened: Rc::new(Cell::new(true)) }
    }
}

impl fmt::Debug for SharedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}
