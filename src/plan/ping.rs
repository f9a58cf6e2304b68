//! The plan of pings (`--ping`).
use super::{
    PlanError,
    flags::{protocol, sandbox, settings},
    remote::{remote_target, target, unbracketed},
    usage,
};
use crate::{
    cli::Cli,
    commands::{MAX_KERNEL_TARGETS, MAX_PING_TARGETS, PROBE_BUFFER, Ping},
    host::resolve,
    kernel::DialOptions,
    process::sandbox::Profile,
    report::JsonReport,
};
use std::{collections::HashSet, time::Duration};

/// Longest wait for an answer without -w.
const WAIT: Duration = Duration::from_secs(1);
/// Interval of pings without --interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Plans `count` pings of each target, or pings without an end.
pub(super) fn ping(cli: &Cli, count: Option<u64>, report: &mut JsonReport) -> Result<Ping, PlanError> {
    let (names, ports) = match cli.target.as_slice() {
        [names, ports @ ..] if !ports.is_empty() => (names, ports.join(",")),
        // One word, or none.
        _ => {
            return remote_target(cli)
                .and_then(|_| usage("say which ports to ping: netkat --ping HOST 22,80"));
        }
    };
    let ports = resolve::ports(&ports, protocol(cli))?;
    let mut seen = HashSet::new();
    let names: Vec<_> = names.split(',').map(unbracketed).filter(|name| seen.insert(*name)).collect();
    if names.iter().any(|name| name.is_empty()) {
        return usage("a host is empty: netkat --ping HOST,HOST PORT");
    }
    let targets = names.len() * ports.len();
    let most = if cli.both { MAX_KERNEL_TARGETS } else { MAX_PING_TARGETS };
    if targets > most {
        let flag = if cli.both { "--both" } else { "--ping" };
        return usage(format!("{flag}: {targets} targets are too many; at most {most} are pinged at once"));
    }
    let first = ports.first().copied().unwrap_or_default();
    let mut hosts = Vec::with_capacity(names.len());
    for name in names {
        let mut host = target(cli, name, first, report)?;
        for attempt in &mut host.attempts {
            attempt.setup.settings.send_buffer = PROBE_BUFFER;
            attempt.setup.settings.receive_buffer = PROBE_BUFFER;
            if cli.both {
                attempt.setup.sandbox = sandbox(cli, Profile::Dial);
            }
        }
        hosts.push(host);
    }
    let query = hosts.iter().flat_map(|host| &host.attempts).map(|attempt| attempt.request.query).next();
    let both = cli.both.then(|| DialOptions {
        source: query.and_then(|query| query.source),
        interface: cli.interface.clone(),
        traffic_class: cli.tos,
        hop_limit: cli.ttl,
    });
    Ok(Ping {
        protocol: protocol(cli),
        hosts,
        ports,
        count,
        interval: cli.interval.unwrap_or(INTERVAL),
        wait: cli.wait.unwrap_or(WAIT),
        settings: settings(cli),
        both,
    })
}
