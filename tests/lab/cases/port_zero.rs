//! Port 0: netkat takes a free port and reports it.
use crate::support::{
    netkat::netkat,
    payload::Payload,
    process::{DEADLINE, Process},
    requirements::lab,
    topology::{Family, Pair},
};

/// Returns the port that a listener's line names.
fn port(listener: &mut Process) -> u16 {
    listener.wait_for_stderr("listening on");
    let stderr = listener.stderr();
    let line = stderr.lines().find(|line| line.contains("listening on")).expect("a line");
    // With --json the line is the message of an object.
    let word = line.rsplit(' ').next().map(|word| word.trim_end_matches("\"}"));
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{stderr}"))
}

#[test]
fn a_listener_takes_a_free_port_and_says_which() {
    lab!();
    let pair = Pair::new();
    let out = Payload::short();
    for family in Family::ALL {
        let at = pair.host_address(family);
        for arguments in [format!("-l {at} 0"), format!("-l -s {at} -p 0"), "-l 0".to_owned()] {
            for udp in ["", "-u "] {
                let ends = if udp.is_empty() { "" } else { "-q 0 --idle-timeout 2 " };
                let mut listener =
                    netkat(&pair.host, &format!("--json {udp}{ends}{arguments}")).expect(&out).spawn();
                let port = port(&mut listener);
                assert_ne!(port, 0);
                let client = netkat(&pair.peer, &format!("{udp}-q 1 {at} {port}")).input(out.input()).run();
                assert_eq!(client.code(), Some(0), "{client}");
                let listener = listener.wait(DEADLINE);
                listener.check(&out);
                let json = listener.stderr.lines().last().expect("JSON");
                let report: serde_json::Value = serde_json::from_str(json).expect("JSON");
                assert_eq!(report["listening"]["port"], port, "{report}");
            }
        }
    }
}

/// Several listeners have several ports, and a port that a rule translates is not taken.
#[test]
fn free_ports_differ_and_a_source_port_of_0_is_any() {
    lab!();
    let pair = Pair::new();
    let mut listeners: Vec<_> = (0..3).map(|_| netkat(&pair.host, "-l 0").spawn()).collect();
    let mut ports: Vec<_> = listeners.iter_mut().map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    let output = netkat(&pair.host, "-p 0 10.77.0.2 5000").run();
    assert!(output.stderr.contains("refused"), "{output}");
}
