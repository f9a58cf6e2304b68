//! The plans of a trace (`--trace`) and of a measurement of the path's MTU (`--mtu`).
use super::{
    PlanError,
    flags::protocol,
    remote::{CONNECT_WAIT, remote_target, target},
    usage,
};
use crate::{
    cli::Cli,
    commands::{PROBE_BUFFER, PathMtu, PathTrace},
    host::resolve,
    report::JsonReport,
    stack::Settings,
};

/// Maximum hops without --ttl, as traceroute's.
const HOPS: u8 = 30;

/// Plans a trace.
pub(super) fn trace(cli: &Cli, report: &mut JsonReport) -> Result<PathTrace, PlanError> {
    let (host, port) = remote_target(cli)?;
    let port = resolve::port(port, protocol(cli))?;
    let mut target = target(cli, host, port, report)?;
    let paths = cli.paths.unwrap_or(1);
    let mut settings = None;
    for attempt in &mut target.attempts {
        // The flow's own segments reach the far end however few hops are asked for.
        let own = Settings {
            hop_limit: None,
            send_buffer: PROBE_BUFFER,
            receive_buffer: PROBE_BUFFER,
            ..attempt.setup.settings.clone()
        };
        settings.get_or_insert_with(|| own.clone());
        if attempt.setup.port.checked_add(paths - 1).is_none() {
            return usage(format!(
                "--paths {paths}: there are not so many ports from -p {}",
                attempt.setup.port
            ));
        }
        attempt.setup.settings = own;
    }
    Ok(PathTrace {
        protocol: protocol(cli),
        settings: settings.unwrap_or_else(|| super::flags::settings(cli)),
        target,
        port,
        hops: cli.ttl.unwrap_or(HOPS),
        paths,
        wait: cli.wait.unwrap_or(CONNECT_WAIT),
        names: cli.verbose > 0 && !cli.numeric,
    })
}

/// Plans a measurement of the path's MTU.
pub(super) fn mtu(cli: &Cli, report: &mut JsonReport) -> Result<PathMtu, PlanError> {
    let (host, port) = remote_target(cli)?;
    let port = resolve::port(port, protocol(cli))?;
    let mut target = target(cli, host, port, report)?;
    for attempt in &mut target.attempts {
        attempt.setup.settings.send_buffer = PROBE_BUFFER;
        attempt.setup.settings.receive_buffer = PROBE_BUFFER;
    }
    Ok(PathMtu {
        protocol: protocol(cli),
        target,
        port,
        settings: super::flags::settings(cli),
        wait: cli.wait.unwrap_or(CONNECT_WAIT),
    })
}
