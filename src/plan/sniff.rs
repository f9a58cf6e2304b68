//! The plan of a sniffer (`--sniff`, `--read`).
use super::{
    PlanError,
    flags::{enter_namespace, family, feature_overrides, names, sandbox, text_options},
    scope::Scope,
    sniff_filter, usage,
};
use crate::{
    cli::{Cli, LineForm},
    commands::{Sniff, Source},
    host::{
        interface::{self, Interface},
        resolve,
    },
    process::sandbox::Profile,
    sniffer::{
        LinkType,
        capture_file::addresses_in,
        filter::{Filter, Frames},
        sink::SinkOptions,
    },
    stdio::STANDARD,
};
use std::path::Path;

/// Plans a sniffer.
pub(super) fn sniff(cli: &Cli) -> Result<Sniff, PlanError> {
    let named = cli.interface.as_deref().filter(|name| *name != "any");
    if cli.promiscuous && named.is_none() {
        return usage("--promiscuous: name one interface");
    }
    if let Some(Some(path)) = cli.json.as_ref().filter(|file| file.as_deref() != Some(Path::new(STANDARD))) {
        return usage(format!(
            "--json={}: packets are shown on standard output; use --json and redirect it",
            path.display()
        ));
    }
    let filter = sniff_filter::filter(cli)?;
    let source = match &cli.read {
        // In a file, a zone is the name of an interface of the host that recorded it.
        Some(path) => Source::File {
            path: path.clone(),
            filter: resolved(cli, filter)?,
            zone: sniff_filter::zoned_host(cli).map(|(_, zone)| zone.to_owned()),
        },
        None => live(cli, named, filter)?,
    };
    let several = matches!(source, Source::Live { interface: None, .. });
    let shown = cli.shows_packets();
    let text = text_options(cli, several);
    Ok(Sniff {
        source,
        output: SinkOptions { text: shown.then_some(text), capture_file: cli.pcap.clone() },
        count: cli.count,
        snapshot_length: cli.snapshot_length.filter(|length| *length > 0),
        overrides: feature_overrides(cli),
        sandbox: sandbox(cli, if cli.read.is_some() { Profile::Replay } else { Profile::Sniff }),
    })
}

/// Returns the interface of -i or of the host's zone; `None` for all.
fn live_interface(cli: &Cli, name: Option<&str>) -> Result<Option<Interface>, PlanError> {
    let scope = Scope::named(name)?;
    let scope = match sniff_filter::zoned_host(cli) {
        Some((host, _)) => scope.within(&resolve::literal(host, 0)?)?,
        None => scope,
    };
    Ok(scope.interface().cloned())
}

/// Looks up the names of a filter, in the capture file as well. What is wrong with the filter itself has been found
/// out before.
fn resolved(cli: &Cli, filter: Option<Filter>) -> Result<Option<Filter>, PlanError> {
    let in_file = |name: &str| cli.read.as_ref().map_or_else(Vec::new, |path| addresses_in(path, name));
    Ok(filter.map(|filter| filter.resolve(family(cli), names(cli), &in_file)).transpose()?)
}

/// Plans a live capture of one interface, or of all.
fn live(cli: &Cli, name: Option<&str>, filter: Option<Filter>) -> Result<Source, PlanError> {
    // Names are looked up from here; all else belongs to the namespace.
    let filter = resolved(cli, filter)?;
    enter_namespace(cli)?;
    let interface = live_interface(cli, name)?;
    let frames = match &interface {
        Some(interface) => Frames::Live {
            link_type: LinkType::from_arphrd(interface.hardware),
            netmask: netmask(interface.index)?,
        },
        None => Frames::Any,
    };
    let program = filter.map(|filter| filter.compile(frames)).transpose()?;
    Ok(Source::Live { interface, promiscuous: cli.promiscuous, program })
}

/// Returns the netmask of an interface's first IPv4 address, or 0.
fn netmask(interface: u32) -> Result<u32, PlanError> {
    let addresses = interface::addresses(Some(interface))?;
    let prefix = addresses.iter().find(|address| address.ip.is_ipv4()).map(|address| address.prefix);
    Ok(prefix.and_then(|prefix| u32::MAX.checked_shl(32 - u32::from(prefix.min(32)))).unwrap_or(0))
}

/// Refuses flags for a form of lines that the packets do not have.
pub(super) fn check_line_form(cli: &Cli) -> Result<(), PlanError> {
    let details = [
        ("--time", cli.time.is_some()),
        ("--link-header", cli.link_header),
        ("--absolute-tcp-sequence-numbers", cli.absolute_tcp_sequence_numbers),
    ];
    match details.iter().find(|(_, given)| *given) {
        Some((flag, _)) if cli.line == Some(LineForm::Gvisor) => {
            usage(format!("{flag} is for --line tcpdump"))
        }
        _ => Ok(()),
    }
}
