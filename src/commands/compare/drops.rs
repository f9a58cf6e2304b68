//! The drop events of an attempt, of all network namespaces at once.
use crate::{
    diagnose::{DropEvent, Ends, PacketHeader, SourceState},
    kernel::{DropMonitor, DropReasons, DroppedPacket},
    report::Error,
    text,
};
use std::os::fd::{AsFd, BorrowedFd};

/// Maximum length of a name of the kernel's, in characters.
const NAME: usize = 64;
/// Maximum drops that are kept. Others' packets with the same port number are among them.
const MAX_DROPS: usize = 1000;

/// Drop events under way.
pub(super) struct DropWatch {
    monitor: Option<DropMonitor>,
    state: SourceState,
    dropped: Vec<DroppedPacket>,
}

/// The drop events of an attempt that is over.
pub(super) struct Drops {
    state: SourceState,
    dropped: Vec<DroppedPacket>,
    reasons: DropReasons,
}

impl DropWatch {
    /// Attaches the program. Where it cannot, the other sources go on alone; `wanted` false pretends that.
    pub(crate) fn open(wanted: bool) -> DropWatch {
        let opened = match wanted {
            true => DropMonitor::open().map_err(|error| error.to_string()),
            false => Err("switched off".to_owned()),
        };
        let (monitor, state) = match opened {
            Ok(monitor) => (Some(monitor), SourceState { used: true, ..SourceState::default() }),
            Err(why) => {
                log::info!("drop events: {why}");
                (None, SourceState::unused(why))
            }
        };
        DropWatch { monitor, state, dropped: Vec::new() }
    }

    /// Watches a port from now on.
    pub(crate) fn watch(&self, port: u16) {
        if let Some(Err(error)) = self.monitor.as_ref().map(|monitor| monitor.watch(port)) {
            log::debug!("cannot watch the drops of port {port}: {error}");
        }
    }

    /// Returns the descriptor that becomes readable when a packet was dropped.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(AsFd::as_fd)
    }

    /// Takes what was dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn collect(&mut self) -> Result<(), Error> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        let dropped = monitor.take().map_err(super::failed("read the drop events"))?;
        self.state.events = self.state.events.saturating_add(dropped.len() as u64);
        self.dropped.extend(dropped);
        self.state.lost |= self.dropped.len() >= MAX_DROPS || monitor.has_lost();
        self.dropped.truncate(MAX_DROPS);
        Ok(())
    }

    /// Detaches the program, and names the reasons.
    pub(crate) fn finish(self) -> Drops {
        let DropWatch { state, dropped, .. } = self;
        let reasons = if dropped.is_empty() { DropReasons::default() } else { DropReasons::read() };
        Drops { state, dropped, reasons }
    }
}

impl Drops {
    pub(crate) fn state(&self) -> SourceState {
        self.state.clone()
    }

    /// Returns the drops of the attempt's packets in one network namespace.
    pub(crate) fn of(&self, netns: u64, ends: &Ends) -> Vec<DropEvent> {
        let here = self.dropped.iter().filter(|dropped| u64::from(dropped.netns) == netns);
        here.filter_map(|dropped| {
            let subject = ends.subject(&PacketHeader::parse(&dropped.bytes)?)?;
            let safe = |name: &String| text::beginning(name, NAME);
            Some(DropEvent {
                subject,
                interface: Some(safe(&dropped.device)).filter(|name| !name.is_empty()),
                reason: self.reasons.name(dropped.reason).map(|name| text::beginning(name, NAME)),
                symbol: safe(&dropped.symbol),
            })
        })
        .collect()
    }
}
