//! The messages between netkat and the supervisor of a command's namespace.
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// A message to the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// All ids of the user namespace are mapped if `ids` is set; else the supervisor maps its own. The device is
    /// there if `device` is set; else the supervisor makes it.
    Prepared { ids: bool, device: bool },
    /// Start the command.
    Start,
    /// Send this signal to the command.
    Signal(i32),
}

/// A message from the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The namespaces are made, and wait for their ids.
    Unshared,
    /// A step was refused, in words.
    Refused(String),
    /// The device is there. If the supervisor has made it, its outer end has this index. The message carries the
    /// packet socket there, if so, and a sock_diag socket.
    Ready { outer: Option<u32> },
    /// The command runs.
    Started,
    /// execve(2) failed with this error number.
    CannotRun(i32),
    /// The command has ended with this status, a shell's for a signal.
    Ended(u8),
}

/// Writes a message.
///
/// # Errors
/// Those of the encoder.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// Reads a message.
///
/// # Errors
/// The bytes are no message.
pub(super) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    Ok(serde_json::from_slice(bytes)?)
}
