//! Groups and broadcast addresses: TCP refuses them as the kernel does, datagrams go there as the kernel sends them,
//! and a listener hears them beside the host's other listeners.
use crate::support::{
    namespace::Namespace,
    netkat::{GUARDS, listening, netkat},
    process::{Command, DEADLINE, Input, Process},
    requirements::lab,
    topology::{Pair, address},
};
use std::time::Duration;

const PORT: u16 = 5000;

/// A Python program in a namespace, behind the imports and the options that IPv4's groups take.
fn python(namespace: &Namespace, script: &str) -> Command {
    let script = format!("import socket, struct\nINDEX = socket.if_nametoindex('eth0')\n{script}");
    namespace.command("python3").args(["-u", "-c", &script])
}

/// Sends "question" from the peer's eth0 to a group or broadcast address, and prints each answer
/// with its sender.
fn ask(pair: &Pair, to: &str) -> Command {
    let family = if to.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')\n\
         s.settimeout(5)\n\
         s.sendto(b'question', ('{to}', {PORT}))\n\
         data, peer = s.recvfrom(100)\n\
         print(data.decode(), peer[0], peer[1])"
    );
    python(&pair.peer, &script)
}

/// A member of a group, which prints what it hears.
fn member(namespace: &Namespace, group: &str) -> Process {
    let script = format!(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('', {PORT}))\n\
         s.setsockopt(socket.IPPROTO_IP, 35, struct.pack('4s4si', socket.inet_aton('{group}'), bytes(4), INDEX))\n\
         print('up')\n\
         while True:\n\
         \x20   data, peer = s.recvfrom(100)\n\
         \x20   print(data.decode())\n\
         \x20   s.sendto(b'from a member', peer)"
    );
    let mut member = python(namespace, &script).spawn();
    member.wait_for_stdout("up");
    member
}

/// Returns the groups that the host is a member of at eth0, without those of every host.
fn memberships(pair: &Pair) -> String {
    let v4 = pair.host.words("cat /proc/net/igmp").succeed().text();
    let v6 = pair.host.words("cat /proc/net/igmp6").succeed().text();
    format!("{v4}{v6}")
}

#[test]
fn tcp_to_a_group_is_refused_at_once_with_the_kernels_reason() {
    lab!();
    let pair = Pair::new();
    pair.host.ip("route add default via 10.77.0.2");
    for to in
        ["255.255.255.255", "10.77.0.255", "239.1.2.3", "224.0.0.1", "ff02::1%eth0", "ff05::5", "ff0e::1"]
    {
        for flags in [
            "",
            "-z",
            "-i eth0",
            if to.contains(':') { "-s fd77::1" } else { "-s 10.77.0.1" },
            if to.contains(':') { "--via fd77::2" } else { "--via 10.77.0.2" },
            "-i eth0 --via 02:00:77:00:00:02",
            if to.contains(':') { "-i eth0 --as fd77::9" } else { "--as 10.77.0.9" },
        ] {
            let output = netkat(&pair.host, &format!("-w 30 --exit-verdict {flags} {to} {PORT}"))
                .input(Input::Null)
                .run();
            assert!(
                output.stderr.starts_with(&format!("netkat: no route to {to}")),
                "{flags} {to}: {output}"
            );
            assert!(output.stderr.contains("the network is unreachable by TCP"), "{flags} {to}: {output}");
            assert!(output.code() == Some(6) && output.text().is_empty(), "{flags} {to}: {output}");
            assert!(output.elapsed < Duration::from_secs(5), "{flags} {to}: {output}");
        }
    }
    for to in ["0.0.0.0", "::"] {
        for flags in ["", "-z", "-u", "-i eth0 --via 02:00:77:00:00:02"] {
            let output = netkat(&pair.host, &format!("{flags} {to} {PORT}")).input(Input::Null).run();
            assert!(output.stderr.contains("is no destination"), "{flags} {to}: {output}");
        }
    }
}

#[test]
fn datagrams_to_all_hosts_take_leave() {
    lab!("python3");
    let pair = Pair::new();
    for to in ["10.77.0.255", "-i eth0 255.255.255.255"] {
        for flags in ["-u", "-u -z"] {
            let refused = netkat(&pair.host, &format!("{flags} {to} {PORT}")).input(Input::Null).run();
            assert_eq!(refused.code(), Some(1), "{flags} {to}: {refused}");
            assert!(refused.stderr.contains("Permission denied: it is a broadcast address"), "{refused}");
            assert!(refused.stderr.contains("-b"), "{refused}");
        }
        let server = member(&pair.peer, "239.1.2.3");
        let client = netkat(&pair.host, &format!("-u -b {to} {PORT}")).text("hello").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "from a member"), "{client}");
        assert_eq!(server.stdout(), b"up\nhello\n");
        drop(server);
    }
    let tcp = netkat(&pair.host, &format!("-b 10.77.0.2 {PORT}")).input(Input::Null).run();
    assert_eq!(tcp.code(), Some(2), "{tcp}");
}

#[test]
fn datagrams_to_a_group_leave_as_the_kernels() {
    lab!();
    let pair = Pair::new();
    pair.host.ip("route add 239.0.0.0/8 dev eth0");
    for (flags, to, mac, ttl) in [
        ("", "239.129.2.3", "01:00:5e:01:02:03", 1),
        ("-i eth0", "224.0.0.251", "01:00:5e:00:00:fb", 1),
        ("-s 10.77.0.1", "224.1.2.3", "01:00:5e:01:02:03", 1),
        ("--ttl 9", "239.1.2.3", "01:00:5e:01:02:03", 9),
        ("", "ff02::1:2%eth0", "33:33:00:01:00:02", 1),
        ("-i eth0", "ff05::1:3", "33:33:00:01:00:03", 1),
        ("--ttl 9", "ff05::1:3%eth0", "33:33:00:01:00:03", 9),
        ("-b", "10.77.0.255", "ff:ff:ff:ff:ff:ff", 64),
        ("-b -i eth0", "255.255.255.255", "ff:ff:ff:ff:ff:ff", 64),
        ("--as 10.77.0.9", "239.1.2.3", "01:00:5e:01:02:03", 1),
    ] {
        let mut sniffer =
            netkat(&pair.peer, &format!("-v --sniff -i eth0 -u --json --count 1 -p {PORT}")).spawn();
        sniffer.wait_for_stderr("listening on eth0");
        let client = netkat(&pair.host, &format!("-u -q 0 {flags} {to} {PORT}")).text("hello").run();
        assert_eq!(client.code(), Some(0), "{flags} {to}: {client}");
        let seen = sniffer.wait(DEADLINE).text();
        assert!(seen.contains(&format!("\"destination_mac\":\"{mac}\"")), "{flags} {to}: {seen}");
        assert!(seen.contains(&format!("\"ttl\":{ttl},")), "{flags} {to}: {seen}");
    }
    // No group is left among the neighbours.
    let neighbours = pair.host.words("ip neighbour show nud all").succeed().text();
    assert!(!neighbours.contains("239.1.2.3"), "{neighbours}");
}

#[test]
fn every_member_may_answer() {
    lab!("python3");
    let pair = Pair::new();
    address(&pair.peer, "eth0", "10.77.0.3/24");
    let script = format!(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('', {PORT}))\n\
         s.setsockopt(socket.IPPROTO_IP, 35, struct.pack('4s4si', socket.inet_aton('239.1.2.3'), bytes(4), INDEX))\n\
         print('up')\n\
         data, peer = s.recvfrom(100)\n\
         for own in ('10.77.0.2', '10.77.0.3'):\n\
         \x20   t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         \x20   t.bind((own, 0))\n\
         \x20   t.sendto(f'{{own}}\\n'.encode(), peer)"
    );
    let mut server = python(&pair.peer, &script).spawn();
    server.wait_for_stdout("up");
    let client = netkat(&pair.host, &format!("-u -i eth0 239.1.2.3 {PORT}")).text("who").run();
    assert_eq!((client.code(), client.text().as_str()), (Some(0), "10.77.0.2\n10.77.0.3\n"), "{client}");
}

#[test]
fn a_listener_hears_broadcasts_and_answers_from_its_own_address() {
    lab!("python3");
    for guard in GUARDS {
        let pair = Pair::new();
        for (listens, to, answers) in [
            ("", "10.77.0.255", Some("10.77.0.1")),
            ("", "255.255.255.255", Some("10.77.0.1")),
            ("", "224.0.0.1", Some("10.77.0.1")),
            ("-4", "10.77.0.255", Some("10.77.0.1")),
            ("-i eth0", "10.77.0.255", Some("10.77.0.1")),
            ("10.77.0.255", "10.77.0.255", Some("10.77.0.1")),
            ("10.77.0.1", "10.77.0.255", None),
            ("--as 10.77.0.9", "10.77.0.255", Some("10.77.0.9")),
        ] {
            let server =
                listening(&pair.host, &format!("--guard {guard} -u -w 3 -q 0 {listens} {PORT}"), |c| {
                    c.text("answer")
                });
            let asked = ask(&pair, to).deadline(DEADLINE).run();
            let server = server.wait(DEADLINE);
            match answers {
                Some(own) => {
                    assert_eq!(asked.text(), format!("answer {own} {PORT}\n"), "{listens} {to}: {server}");
                    assert_eq!((server.code(), server.text().as_str()), (Some(0), "question"), "{server}");
                    assert!(!server.stderr.contains("ahead of the guard"), "{server}");
                }
                None => assert_eq!((server.code(), server.text().as_str()), (Some(1), ""), "{server}"),
            }
        }
    }
}

#[test]
fn a_listener_joins_its_group_and_leaves_it() {
    lab!("python3");
    let pair = Pair::new();
    address(&pair.host, "eth0", "fe80::77:1/64");
    for (listens, to, own) in [
        ("239.1.2.3", "239.1.2.3", "10.77.0.1"),
        ("-i eth0 239.1.2.3", "239.1.2.3", "10.77.0.1"),
        ("-s 239.1.2.3 -p", "239.1.2.3", "10.77.0.1"),
        ("ff05::5", "ff05::5", "fd77::1"),
        ("ff02::5%eth0", "ff02::5%eth0", "fe80::"),
        ("-i eth0 ff02::5", "ff02::5%eth0", "fe80::"),
    ] {
        let server = listening(&pair.host, &format!("-u -w 5 -q 0 {listens} {PORT}"), |c| c.text("answer"));
        let during = memberships(&pair);
        let listed = if to.contains(':') { "000000000000000000000005" } else { "030201EF" };
        assert!(during.contains(listed), "{listens}: {during}");
        let asked = ask(&pair, to).run();
        let server = server.wait(DEADLINE);
        assert!(asked.text().starts_with(&format!("answer {own}")), "{listens}: {asked} {server}");
        assert_eq!((server.code(), server.text().as_str()), (Some(0), "question"), "{listens}: {server}");
        assert!(!memberships(&pair).contains(listed), "{listens}");
    }
    let killed = listening(&pair.host, &format!("-u 239.1.2.3 {PORT}"), |c| c.input(Input::Null));
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    drop(killed.wait(DEADLINE));
    assert!(!memberships(&pair).contains("030201EF"));
    for (arguments, message) in [
        (format!("-l 239.1.2.3 {PORT}"), "TCP cannot listen at a group"),
        (format!("-l 10.77.0.255 {PORT}"), "TCP cannot listen at a broadcast address"),
        (format!("-u -l ff02::5 {PORT}"), "ff02::5 is link-local: say on which interface"),
    ] {
        let output = netkat(&pair.host, &arguments).input(Input::Null).run();
        assert!(output.stderr.contains(message), "{output}");
    }
}

#[test]
fn other_members_on_this_host_hear_the_group_as_before() {
    lab!("python3");
    let pair = Pair::new();
    for guard in GUARDS {
        let other = member(&pair.host, "239.1.2.3");
        let server = listening(&pair.host, &format!("--guard {guard} -u -w 5 -q 0 239.1.2.3 {PORT}"), |c| {
            c.input(Input::Null)
        });
        ask(&pair, "239.1.2.3").succeed();
        let server = server.wait(DEADLINE);
        assert_eq!(server.text(), "question", "{server}");
        let mut other = other;
        other.wait_for_stdout("question");
        drop(other);
    }
    // The report names a listener that keeps the port for itself.
    let script = format!(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', {PORT}))\nprint('up')\n__import__('time').sleep(60)"
    );
    let mut exclusive = python(&pair.host, &script).spawn();
    exclusive.wait_for_stdout("up");
    let refused = netkat(&pair.host, &format!("-u -l 239.1.2.3 {PORT}")).input(Input::Null).run();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains(&format!("a process receives on 0.0.0.0:{PORT}")), "{refused}");
}

#[test]
fn a_group_on_lo_is_heard() {
    lab!();
    let pair = Pair::new();
    for (listens, to) in [("-i lo 239.1.2.3", "-i lo 239.1.2.3"), ("", "-b 127.255.255.255")] {
        let server =
            listening(&pair.host, &format!("-u -w 5 -q 500ms {listens} {PORT}"), |c| c.text("answer"));
        let client = netkat(&pair.host, &format!("-u {to} {PORT}")).text("question").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "answer"), "{client}");
        assert_eq!(server.wait(DEADLINE).text(), "question");
    }
}

#[test]
fn behind_a_bridge_a_datagram_is_heard_once() {
    lab!("python3");
    let pair = Pair::new();
    pair.bridge_host();
    for (listens, to) in [("", "10.77.0.255"), ("-i br0", "10.77.0.255"), ("239.1.2.3", "239.1.2.3")] {
        let server = listening(&pair.host, &format!("-k -u {listens} {PORT}"), |c| c.text("answer"));
        let asked = ask(&pair, to).run();
        assert_eq!(asked.text(), format!("answer 10.77.0.1 {PORT}\n"), "{listens}: {asked}");
        let server = server.terminate();
        assert_eq!(server.text(), "question", "{listens}: {server}");
    }
}
