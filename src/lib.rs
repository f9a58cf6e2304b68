//! netkat: netcat over a TCP/IP stack of its own.
#![deny(unsafe_code)]

pub mod cli;
pub mod exit;
pub mod host;
pub mod kernel;
pub mod link;
pub mod logging;
pub mod mode;
pub mod net;
pub mod plan;
pub mod reactor;
pub mod recovery;
pub mod relay;
pub mod sniffer;
pub mod stack;
pub mod stdio;
