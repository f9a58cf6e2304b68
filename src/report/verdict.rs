//! Verdicts: the few kinds of outcome that scripts tell apart, and the exit status of each.
use super::Error;
use crate::{
    gateway,
    host::{neighbour::NeighbourError, route::RouteError},
    kernel::KernelError,
    link::LinkError,
    namespace,
    process::capability::CapabilityError,
    runtime::{self, EgressError},
    session,
};
use serde::Serialize;
use std::{fmt, io};

/// The kind of a run's outcome.
///
/// JSON has the identifier, which is the variant's name in snake case; `Display` has the words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Done,
    /// A failure of none of the following kinds; the message has the reason.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No answer, no client, or silence for the idle or the user timeout.
    TimedOut,
    /// A reset answered the SYN, or an ICMP port unreachable the datagram.
    Refused,
    /// An ICMP error answered.
    Rejected,
    NoRoute,
    NoNeighbour,
    /// A capability is missing.
    Privilege,
    /// This host's own egress dropped what netkat sent.
    EgressDropped,
    /// The host's name has no address, or the resolver no answer.
    Name,
    /// A signal ended the run; the process ends by the same signal.
    Interrupted,
}

impl Verdict {
    /// Returns the exit status: 0, 1 or 2, as nc's; with `detailed`, a number for each kind of failure.
    pub(crate) fn status(self, detailed: bool) -> u8 {
        match self {
            Verdict::Done => 0,
            Verdict::Usage => 2,
            _ if !detailed => 1,
            Verdict::Failed | Verdict::Interrupted => 1,
            Verdict::TimedOut => 3,
            Verdict::Refused => 4,
            Verdict::Rejected => 5,
            Verdict::NoRoute | Verdict::NoNeighbour => 6,
            Verdict::Privilege => 7,
            Verdict::EgressDropped => 8,
            Verdict::Name => 9,
        }
    }
}

impl Verdict {
    /// Returns how far a connection attempt with this outcome came: the peer's own answer counts most.
    pub(crate) fn reach(self) -> u8 {
        match self {
            Verdict::Done => 7,
            Verdict::Refused => 6,
            Verdict::Rejected => 5,
            Verdict::TimedOut => 4,
            Verdict::EgressDropped => 3,
            Verdict::NoNeighbour => 2,
            Verdict::NoRoute => 1,
            Verdict::Failed | Verdict::Usage | Verdict::Privilege | Verdict::Name | Verdict::Interrupted => 0,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Done => "done",
            Verdict::Failed => "failed",
            Verdict::Usage => "wrong usage",
            Verdict::TimedOut => "timed out",
            Verdict::Refused => "refused",
            Verdict::Rejected => "rejected",
            Verdict::NoRoute => "no route",
            Verdict::NoNeighbour => "no neighbour",
            Verdict::Privilege => "missing privilege",
            Verdict::EgressDropped => "dropped by own egress",
            Verdict::Name => "name look-up failed",
            Verdict::Interrupted => "interrupted",
        })
    }
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Verdict {
        match error {
            Error::TimedOut { .. } | Error::Silent { .. } => Verdict::TimedOut,
            Error::EgressDropped { .. } => Verdict::EgressDropped,
            Error::NothingOpen { verdict, .. }
            | Error::Unusable { verdict, .. }
            | Error::NotAsWanted { verdict, .. }
            | Error::NoneReached { verdict, .. } => *verdict,
            Error::Filter(_) => Verdict::Usage,
            Error::Session(error) => error.into(),
            Error::Runtime(error) | Error::Gateway(gateway::Error::Runtime(error)) => error.into(),
            Error::Gateway(gateway::Error::Namespace(namespace::Error::Refused { .. })) => Verdict::Privilege,
            _ => Verdict::Failed,
        }
    }
}

impl From<&session::Error> for Verdict {
    fn from(error: &session::Error) -> Verdict {
        use session::Error;
        match error {
            Error::Vanished(_) | Error::NoClient(_) | Error::Idle { .. } | Error::NoProxyHeader { .. } => {
                Verdict::TimedOut
            }
            Error::Refused(_) | Error::PortUnreachable { .. } => Verdict::Refused,
            Error::Rejected { .. } => Verdict::Rejected,
            Error::DatagramsDropped { .. } => Verdict::EgressDropped,
            Error::Runtime(error) => error.into(),
            _ => Verdict::Failed,
        }
    }
}

impl From<&runtime::Error> for Verdict {
    fn from(error: &runtime::Error) -> Verdict {
        use runtime::Error;
        match error {
            Error::Interrupted(_) => Verdict::Interrupted,
            Error::Kernel(KernelError::Capability(error)) | Error::Capability(error) => error.into(),
            // A seccomp profile, say: root alone does not help.
            Error::Kernel(KernelError::Forbidden(_) | KernelError::NeitherWay { .. }) => Verdict::Privilege,
            Error::Link(LinkError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
                Verdict::Privilege
            }
            Error::NoNeighbour { .. } => Verdict::NoNeighbour,
            Error::Neighbour(error) => error.into(),
            Error::Egress(error) => error.into(),
            _ => Verdict::Failed,
        }
    }
}

impl From<&CapabilityError> for Verdict {
    fn from(error: &CapabilityError) -> Verdict {
        match error {
            CapabilityError::Missing { .. } | CapabilityError::UserNamespace { .. } => Verdict::Privilege,
            CapabilityError::Unreadable(_) | CapabilityError::NotDropped { .. } => Verdict::Failed,
        }
    }
}

impl From<&NeighbourError> for Verdict {
    fn from(error: &NeighbourError) -> Verdict {
        match error {
            NeighbourError::Failed { .. }
            | NeighbourError::TimedOut { .. }
            | NeighbourError::NoCarrier { .. }
            | NeighbourError::InterfaceDown { .. } => Verdict::NoNeighbour,
            NeighbourError::NotPermitted { .. } => Verdict::Privilege,
            _ => Verdict::Failed,
        }
    }
}

impl From<&EgressError> for Verdict {
    fn from(error: &EgressError) -> Verdict {
        match error {
            EgressError::Route(error) => error.into(),
            EgressError::NotOnLink { .. } | EgressError::NoSource { .. } => Verdict::NoRoute,
            _ => Verdict::Failed,
        }
    }
}

impl From<&RouteError> for Verdict {
    fn from(error: &RouteError) -> Verdict {
        match error {
            RouteError::None(_)
            | RouteError::Unreachable(_)
            | RouteError::Prohibited(_)
            | RouteError::Blackhole(_)
            | RouteError::NoSource { .. }
            | RouteError::NotUnicast { .. }
            | RouteError::InterfaceMismatch { .. }
            | RouteError::InterfaceDown { .. } => Verdict::NoRoute,
            _ => Verdict::Failed,
        }
    }
}
