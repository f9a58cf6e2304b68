//! Placeholder until the loss-recovery layer lands: passes segments through.
use std::collections::VecDeque;
use std::time::Duration;

pub const PLACEHOLDER: usize = 20;
#[derive(Debug)]
pub struct Config {
    pub send_buffer: usize,
    pub mss: usize,
    pub max_frame: usize,
}
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Disposition {
    Show,
    Hide,
}
#[derive(Debug)]
pub struct Transmit<'a> {
    pub header: &'a [u8],
    pub payload: [&'a [u8]; 2],
    pub segment_size: Option<u16>,
}
#[derive(Debug)]
pub struct Recovery {
    queue: VecDeque<Vec<u8>>,
    current: Vec<u8>,
    mss: usize,
}
impl Recovery {
    pub fn new(config: Config) -> Self {
        Recovery { queue: VecDeque::new(), current: vec![], mss: config.mss - 12 }
    }
    pub fn from_stack<R>(&mut self, _now: Duration, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut v = vec![0; len];
        let r = write(&mut v);
        self.queue.push_back(v);
        r
    }
    pub fn from_wire(&mut self, _now: Duration, _segment: &mut [u8]) -> Disposition {
        Disposition::Show
    }
    pub fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<'_>> {
        self.current = self.queue.pop_front()?;
        let h = usize::from(self.current[32] >> 4) * 4;
        let (header, payload) = self.current[20..].split_at(h);
        Some(Transmit {
            header,
            payload: [payload, &[]],
            segment_size: (payload.len() > self.mss).then_some(self.mss as u16),
        })
    }
    pub fn poll_at(&self, _now: Duration) -> Option<Duration> {
        None
    }
}
