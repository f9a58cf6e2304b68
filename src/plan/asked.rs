//! The request of a run, as its JSON objects repeat it: from the flags alone, so that wrong usage has it, too.
use super::{flags::protocol, listen::listening_target, remote::unbracketed};
use crate::{
    cli::Cli,
    host::resolve,
    report::{Asked, Mode},
};

/// Returns what the flags ask for. Words that do not fit are left out.
pub(super) fn asked(cli: &Cli) -> Asked {
    let mode = match () {
        () if cli.runs_command() => Mode::Run,
        () if cli.compare => Mode::Compare,
        () if cli.trace => Mode::Trace,
        () if cli.mtu => Mode::Mtu,
        () if cli.ping.is_some() => Mode::Ping,
        () if cli.scan => Mode::Scan,
        () if cli.listen => Mode::Listen,
        () => Mode::Connect,
    };
    let asked = Asked {
        mode,
        host: None,
        address: None,
        port: None,
        ports: None,
        protocol: Some(protocol(cli)),
        command: Vec::new(),
    };
    let host = |host: &str| Some(unbracketed(host).to_owned());
    let port = |text: &str| resolve::local_port(text, protocol(cli)).ok();
    match (mode, cli.target.as_slice()) {
        (Mode::Run, words) => Asked { protocol: None, command: words.to_vec(), ..asked },
        (Mode::Listen | Mode::Compare, _) if cli.listen => match listening_target(cli) {
            Ok((address, number)) => Asked { host: address.and_then(host), port: port(number), ..asked },
            Err(_) => asked,
        },
        (Mode::Scan, [name, ports]) => Asked { host: host(name), ports: Some(ports.clone()), ..asked },
        (Mode::Ping, [name, ports @ ..]) if !ports.is_empty() => {
            Asked { host: host(name), ports: Some(ports.join(",")), ..asked }
        }
        (_, [name, number]) => Asked { host: host(name), port: port(number), ..asked },
        (_, [name]) => Asked { host: host(name), ..asked },
        _ => asked,
    }
}
