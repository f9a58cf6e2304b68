//! Advice about errors: the flag that helps, which the rooms below do not know.
use super::Error;
use crate::{
    host::route::RouteError,
    kernel::KernelError,
    runtime::{self, EgressError},
    session,
};

/// Returns advice to append to an error's message, if a flag may help.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::Runtime(error) | Error::Session(session::Error::Runtime(error)) => of_runtime(error),
        _ => None,
    }
}

fn of_runtime(error: &runtime::Error) -> Option<&'static str> {
    use runtime::Error;
    match error {
        Error::Egress(error) => of_egress(error),
        Error::Translated { .. } => Some("take it all the same with --force"),
        Error::AddressInUse { .. } => Some("name another address with --as"),
        Error::Kernel(KernelError::TooManyAddresses { .. }) => Some("name those to use with -s"),
        _ => None,
    }
}

/// Returns advice about the way out of this host.
pub(crate) fn of_egress(error: &EgressError) -> Option<&'static str> {
    match error {
        EgressError::Route(RouteError::ForeignSource { .. }) => Some("be another host with --as"),
        EgressError::InterfaceWanted(_) => Some("name the interface with -i"),
        EgressError::NoSource { .. } => Some("name one with -s, or be another host with --as"),
        EgressError::AssumedIsSelf(_) => Some("with --as, name an address that no host has"),
        EgressError::DestinationIsSelf(_) => Some("name one with --via"),
        _ => None,
    }
}
