//! The plan of a comparison (`--compare`).
use super::{
    PlanError,
    flags::{enter_namespace, protocol, sandbox},
    remote::{addresses, attempt, remote_target},
    scope::Scope,
    usage,
};
use crate::{
    cli::{Cli, Feature},
    commands::{Compare, Identity},
    host::{cgroup, resolve, route::RouteError},
    kernel::AttemptUser,
    net::zone::{scoped, zone_of},
    process::sandbox::Profile,
    report::JsonReport,
    runtime::EgressError,
};
use nix::unistd::{Uid, User, getgrouplist};
use std::{ffi::CString, fs, io, path::Path, time::Duration};

/// Time of each path without -w.
const WAIT: Duration = Duration::from_secs(3);

/// Plans a comparison.
pub(super) fn compare(cli: &Cli, report: &mut JsonReport) -> Result<Compare, PlanError> {
    let (host, port) = remote_target(cli)?;
    let protocol = protocol(cli);
    let port = resolve::port(port, protocol)?;
    let source_port = cli.source_port.as_deref().map(|port| resolve::port(port, protocol)).transpose()?;
    let remotes = addresses(cli, host, port, report)?;
    let Some(remote) = remotes.first().copied() else {
        return usage(format!("{host} has no address"));
    };
    let identity = identity(cli)?;
    // Names are looked up from here; all else belongs to the namespace.
    let node = enter_namespace(cli)?;
    let scope = Scope::new(cli)?;
    let attempt = attempt(cli, remote, source_port, &scope)?;
    let egress = match attempt.request.decide() {
        Err(error) if !is_refused(&error) => return Err(error.into()),
        decided => decided,
    };
    let remote = attempt.remote;
    let zone = zone_of(&remote).unwrap_or_default();
    Ok(Compare {
        remote: scoped(remote.ip().to_canonical(), remote.port(), zone),
        attempt,
        egress,
        interface: scope.interface().map(|interface| interface.name.clone()),
        identity,
        node,
        wait: cli.wait.unwrap_or(WAIT),
        sandbox: sandbox(cli, Profile::Relay),
        trials: cli.trials.map(usize::from),
        drop_events: !cli.without.contains(&Feature::DropEvents),
        owner: !cli.without.contains(&Feature::Owner),
    })
}

/// Returns whether the routing policy refuses the destination, which is an answer.
fn is_refused(error: &EgressError) -> bool {
    matches!(
        error,
        EgressError::Route(
            RouteError::None(_)
                | RouteError::Unreachable(_)
                | RouteError::Prohibited(_)
                | RouteError::Blackhole(_)
        )
    )
}

/// Returns whom the kernel's attempt is made as.
fn identity(cli: &Cli) -> Result<Identity, PlanError> {
    if let Some(pid) = cli.like {
        let user = Some(user_of(pid).map_err(|error| PlanError::Process { pid, error })?);
        return Ok(Identity { user, cgroup: cgroup::folder(Path::new(&format!("/proc/{pid}"))) });
    }
    let user = cli.user.as_deref().map(user).transpose()?;
    Ok(Identity { user, cgroup: cli.cgroup.clone() })
}

/// Reads a process's effective user and group, and its supplementary groups (proc_pid_status(5)).
fn user_of(pid: u32) -> io::Result<AttemptUser> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let effective = |name: &str| {
        field(name).split_whitespace().nth(1).and_then(|id| id.parse().ok()).ok_or(io::ErrorKind::InvalidData)
    };
    Ok(AttemptUser {
        uid: effective("Uid:")?,
        gid: effective("Gid:")?,
        groups: field("Groups:").split_whitespace().filter_map(|id| id.parse().ok()).collect(),
    })
}

/// Looks up a user by name or id.
fn user(text: &str) -> Result<AttemptUser, PlanError> {
    let by_id = |id: u32| User::from_uid(Uid::from_raw(id)).ok().flatten();
    let (found, id) = match text.parse::<u32>() {
        Ok(u32::MAX) => return usage(format!("--user {text}: no user has that id")),
        Ok(id) => (by_id(id), id),
        Err(_) => match User::from_name(text).ok().flatten() {
            Some(found) => (Some(found.clone()), found.uid.as_raw()),
            None => return usage(format!("--user \"{text}\": this host knows no such user")),
        },
    };
    // A user that the host does not know has a group of the same number, and no others.
    let Some(found) = found else { return Ok(AttemptUser { uid: id, gid: id, groups: Vec::new() }) };
    let name = CString::new(found.name).unwrap_or_default();
    let groups = getgrouplist(&name, found.gid).unwrap_or_default();
    Ok(AttemptUser {
        uid: id,
        gid: found.gid.as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
    })
}
