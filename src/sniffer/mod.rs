//! Shows and records the frames of a connection, an interface or a capture file.
//!
//! Theory of operation: each source of frames (the link below the stack, a packet socket, a capture
//! file) describes a frame as a [`CapturedFrame`], which borrows its bytes in up to four pieces.
//! [`mod@decode`] reads the headers with pnet_packet, without copying the payload and without
//! allocating. [`mod@line`] and [`json`] render the result as text, [`capture_file`] stores the
//! frame, [`filter`] decides which frames pass, [`sink`] feeds all three, and [`tap`] watches a link on behalf of a sink. A malformed
//! frame is shown as such, never hidden, and cannot cause a panic.
//!
//! Imports run one way: sources and sinks use the renderers, the renderers use the decoder, all use
//! the frame.

pub mod capture_file;
pub mod decode;
pub(crate) mod dump;
pub mod filter;
mod frame;
pub mod hexdump;
pub mod json;
pub mod line;
mod names;
pub mod own_packets;
mod shared_sink;
pub mod sink;
pub mod tap;
pub(crate) mod tcpdump;
mod text;

pub use self::frame::{CapturedFrame, FrameDirection, LinkType};
pub(crate) use self::shared_sink::SharedSink;
pub use crate::link::VlanTag;
