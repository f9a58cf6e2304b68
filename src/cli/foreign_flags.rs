//! Advice for flags of nc and ncat that netkat lacks.
//!
//! The flags are those of OpenBSD's nc 1.2, traditional and GNU netcat, and ncat 7.9, which netkat has none of. -d, -i,
//! -o and -x mean something else in nc(1) and ncat(1). A command that an advice names works as it stands.

/// Flags, and what to use instead.
const ADVICE: [(&[&str], &str); 32] = [
    (&["-e"], "a program for the connection is --exec 'PROGRAM ARGUMENTS'"),
    (&["-c"], "a shell command for the connection is --sh-exec 'COMMAND'"),
    (&["-m"], "ncat's limit of clients is --max-conns N; nc's minimum TTL of received packets can't be set"),
    (&["-t", "--telnet"], "Telnet negotiation is not implemented; use telnet"),
    (&["-T"], "the type of service is --tos TOS"),
    (&["-M"], "the TTL is --ttl HOPS"),
    (&["-I", "-O"], "both buffers are --buffer SIZE"),
    (
        &["-V"],
        "another routing table can't be named; take the way by -i INTERFACE or --via NEXTHOP (the version: --version)",
    ),
    (
        &["-W"],
        "to exit after an amount of data, pipe the output through head -c BYTES; to exit after a time, use -q or -w",
    ),
    (
        &["-r"],
        "ports are probed in the order that they are named (a capture file: --read FILE); shuffle them: -z HOST $(shuf -i 8000-8100 | paste -sd,)",
    ),
    (&["-D"], "the stack is netkat's own: -d shows its packets, -vv its decisions"),
    (&["-S"], "TCP MD5 signatures (RFC 2385) are not implemented"),
    (&["-F"], "no socket can be passed: the connection is not the kernel's"),
    (&["-U", "--unixsock"], "a Unix domain socket has no network to bypass; use nc -U"),
    (&["--vsock"], "a vsock has no network to bypass; use ncat --vsock"),
    (&["-Z", "--sctp"], "only TCP and UDP are implemented"),
    (&["-X", "-P"], "proxies are not supported; use nc -X"),
    (&["-g", "-G"], "source routes are dropped by today's routers; name the next hop with --via"),
    (&["-L", "-R"], "to serve client after client, use -l -k; to forward them, add --sh-exec 'nc HOST PORT'"),
    (
        &["--proxy", "--proxy-type", "--proxy-auth", "--proxy-dns"],
        "proxies are not supported; use ncat --proxy",
    ),
    (&["--ssl", "--ssl-cert", "--ssl-key", "--ssl-verify"], TLS),
    (&["--tls", "--ssl-trustfile", "--ssl-ciphers", "--ssl-servername", "--ssl-alpn"], TLS),
    (&["--broker", "--chat"], "clients are not connected with each other; -l -k --max-conns N serves many"),
    (&["--lua-exec"], "run the script with --exec 'lua SCRIPT'"),
    (&["--allowfile"], "list the hosts with --allow \"$(paste -sd, FILE)\""),
    (&["--denyfile"], "list the hosts with --deny \"$(paste -sd, FILE)\""),
    (&["--nodns"], "addresses without look-ups are -n or --numeric"),
    (&["--timeout"], "the time to connect is -w TIME; a limit to silence is --idle-timeout TIME"),
    (&["--zero"], "probing without data is -z or --scan"),
    (&["--close"], "netkat sends a FIN when the input ends (-N); --send-only exits then"),
    (&["--hexdump"], "a hex dump is -x FILE or --hex-dump FILE"),
    (&["--dont-resolve"], "addresses without look-ups are -n or --numeric"),
];
const TLS: &str = "TLS is not implemented; let a TLS client connect through netkat: socat \
    TCP-LISTEN:18443,bind=127.0.0.1 EXEC:'netkat HOST PORT' & openssl s_client -connect 127.0.0.1:18443";

/// Returns the advice about a flag, if it is one of another netcat.
pub(super) fn advice(flag: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(flags, _)| flags.contains(&flag)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, NotRun};
    use clap::CommandFactory;

    fn answer(arguments: &[&str]) -> String {
        let words = ["netkat"].iter().chain(arguments).map(Into::into);
        match Cli::read(words) {
            Err(NotRun::Wrong(text)) => text,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn foreign_flags_are_answered_with_netkats() {
        for (flags, advice) in ADVICE {
            for flag in flags {
                assert_eq!(answer(&[flag, "10.0.0.1", "80"]), format!("{flag}: {advice}"));
            }
        }
        assert!(answer(&["-lU", "/tmp/x"]).contains("Unix domain"));
        assert!(answer(&["--proxy=10.0.0.1:80", "a", "80"]).contains("proxies"));
        assert_eq!(
            answer(&["--no-such-flag"]),
            "there is no flag --no-such-flag; netkat --help explains those there are"
        );
    }

    #[test]
    fn no_flag_of_ours_is_called_foreign() {
        let command = Cli::command();
        let ours = command.get_arguments().flat_map(|arg| {
            let short = arg.get_short().map(|letter| format!("-{letter}"));
            short.into_iter().chain(arg.get_long().map(|name| format!("--{name}")))
        });
        for flag in ours {
            assert!(!ADVICE.iter().any(|(flags, _)| flags.contains(&flag.as_str())), "{flag}");
        }
    }
}
