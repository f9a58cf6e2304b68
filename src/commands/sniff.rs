//! Sniffing (`--sniff`, `--read`): shows and records the packets of an interface or of a capture file.
//!
//! netkat takes no port, opens no connection and sends nothing. A live capture ends by a signal, by
//! `--count`, or when the reader of its output is gone; a summary follows, as tcpdump's.
mod capture;
mod interfaces;

use self::capture::{Capture, End};
pub(crate) use self::interfaces::list_interfaces;
use crate::{
    host::{features::FeatureOverrides, interface::Interface},
    process::sandbox::Sandbox,
    report::Error,
    sniffer::{
        CapturedFrame, LinkType,
        capture_file::{CaptureReader, CaptureRecord, InterfaceDescription},
        filter::{Filter, Frames, Program},
        sink::{Sink, SinkError, SinkOptions},
    },
    stdio::{self, Writer},
};
use std::{io::Write, path::PathBuf};

/// The source of the frames.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// One interface, or all of them, through a filter's program.
    Live { interface: Option<Interface>, promiscuous: bool, program: Option<Program> },
    /// A capture file, through a filter; of one interface, if its name is given.
    File { path: PathBuf, filter: Option<Filter>, zone: Option<String> },
}

/// Frames to show and to record.
#[derive(Clone, Debug)]
pub(crate) struct Sniff {
    pub source: Source,
    pub output: SinkOptions,
    /// Packets after which netkat exits.
    pub count: Option<u64>,
    /// Bytes of each packet to show and to record at most.
    pub snapshot_length: Option<u32>,
    /// Features that the kernel counts as lacking.
    pub overrides: FeatureOverrides,
    /// Privileges that the process gives up once everything is open.
    pub sandbox: Sandbox,
}

/// State of the sink after a frame.
#[derive(PartialEq, Eq)]
enum Progress {
    GoOn,
    /// The count is reached, or the reader is gone.
    Done,
}

impl Sniff {
    /// Shows and records frames until the source, the count, a signal or the reader ends it.
    pub(crate) fn run(&self) -> Result<(), Error> {
        match &self.source {
            Source::File { path, filter, zone } => {
                let reader = CaptureReader::open(path).map_err(SinkError::Capture)?;
                self.replay(reader, filter.as_ref(), zone.as_deref())
            }
            Source::Live { interface, promiscuous, program } => {
                self.watch(interface.as_ref(), *promiscuous, program.as_ref())
            }
        }
    }

    fn replay(
        &self,
        mut reader: CaptureReader,
        filter: Option<&Filter>,
        zone: Option<&str>,
    ) -> Result<(), Error> {
        let mut filter = filter.map(RecordedFilter::new);
        let mut sink = self.output.open(stdout()?)?;
        self.sandbox.enter(&[])?;
        // One entry for each interface of the file: is it in the zone?
        let mut within = Vec::new();
        let result = loop {
            // The rest may come from a pipe, whose writer takes its time.
            if !reader.is_buffered() && !flush(&mut sink)? {
                break Ok(());
            }
            match reader.read() {
                Ok(Some(CaptureRecord::Interface(interface))) => {
                    within.push(zone.is_none_or(|zone| zone == interface.name));
                    sink.add_interface(interface)?;
                }
                Ok(Some(CaptureRecord::Frame(frame))) => {
                    let here = within.get(frame.interface as usize).copied().unwrap_or(zone.is_none());
                    let passes = here && filter.as_mut().map_or(Ok(true), |filter| filter.passes(&frame))?;
                    if passes && self.write(&mut sink, &frame)? == Progress::Done {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(SinkError::Capture(error).into()),
            }
        };
        if let Some(zone) = zone.filter(|_| !within.contains(&true)) {
            log::warn!("the file has no frame of an interface {zone}");
        }
        // The readable part of a damaged file is shown before the error.
        flush(&mut sink)?;
        if let Some(skipped) = reader.skipped() {
            log::warn!("{skipped}; packets in them are not shown");
        }
        result
    }

    fn watch(
        &self,
        interface: Option<&Interface>,
        promiscuous: bool,
        program: Option<&Program>,
    ) -> Result<(), Error> {
        let mut capture = Capture::open(self, interface, promiscuous, program)?;
        self.sandbox.enter(&[])?;
        log::info!("listening on {}", interface.map_or("any interface", |interface| interface.name.as_str()));
        if let Some(problem) = interface.and_then(Interface::problem) {
            log::warn!("no packet will come: {problem}");
        }
        match capture.run() {
            Ok(End::ReaderGone) => Ok(()),
            result => {
                capture.summarize()?;
                result.map(|_| ())
            }
        }
    }

    /// Describes an interface to the sink.
    fn description(&self, name: String, link_type: LinkType) -> InterfaceDescription {
        InterfaceDescription { name, link_type, snap_length: self.snapshot_length.unwrap_or(0) }
    }

    /// Writes one frame to the sink.
    fn write(&self, sink: &mut Sink, frame: &CapturedFrame<'_>) -> Result<Progress, Error> {
        let mut frame = *frame;
        if let Some(length) = self.snapshot_length {
            let [first, ..] = &mut frame.data;
            *first = first.get(..length as usize).unwrap_or(first);
        }
        match sink.write_frame(&frame) {
            Err(SinkError::Closed) => return Ok(Progress::Done),
            result => result?,
        }
        let done = self.count.is_some_and(|count| sink.frames() >= count);
        Ok(if done { Progress::Done } else { Progress::GoOn })
    }
}

/// A filter for the frames of a file, with a program for each link type in it.
struct RecordedFilter<'a> {
    filter: &'a Filter,
    programs: Vec<(LinkType, Program)>,
}

impl<'a> RecordedFilter<'a> {
    fn new(filter: &'a Filter) -> Self {
        RecordedFilter { filter, programs: Vec::new() }
    }

    fn passes(&mut self, frame: &CapturedFrame<'_>) -> Result<bool, Error> {
        if let Some((_, program)) = self.programs.iter().find(|(known, _)| *known == frame.link_type) {
            return Ok(program.passes(frame));
        }
        let program = self.filter.compile(Frames::Recorded(frame.link_type))?;
        let passes = program.passes(frame);
        self.programs.push((frame.link_type, program));
        Ok(passes)
    }
}

/// Flushes the sink. Returns whether its output still has a reader.
fn flush(sink: &mut Sink) -> Result<bool, Error> {
    match sink.flush() {
        Err(SinkError::Closed) => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Returns standard output, whose writes wait for the reader until a signal ends the run.
fn stdout() -> Result<Box<dyn Write + Send>, Error> {
    Ok(Box::new(Writer::output().map_err(stdio::Error::Output)?))
}
