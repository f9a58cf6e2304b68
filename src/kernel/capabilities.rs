//! Which capability a refusal is about.

use super::error::KernelError;
use caps::{CapSet, Capability};
use std::io;

/// Whether this thread may use a capability now.
pub(super) fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// The error that names a missing capability, when `error` says that permission was denied and the
/// capability is indeed missing.
pub(super) fn missing(
    error: &io::Error,
    action: &'static str,
    capability: Capability,
) -> Option<KernelError> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied && !has(capability);
    denied.then_some(KernelError::Capability { action, capability })
}
