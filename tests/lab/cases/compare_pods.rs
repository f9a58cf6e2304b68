//! `--compare --netns`: a pod's connection, through its own rules and the node's.
use crate::support::{
    comparison::{PORT, Scene, check, drop_events, steady_text},
    namespace::Namespace,
    netkat::netkat,
    process::{Input, Output},
    requirements::lab,
    topology::{Family, address, veth},
};

/// A pod behind the host, which is the node.
struct Node {
    scene: Scene,
    pod: Namespace,
}

impl Node {
    fn new(family: Family) -> Node {
        let scene = Scene::new(family);
        let (node, peer) = (&scene.pair.host, &scene.pair.peer);
        let pod = Namespace::new("pod");
        veth(node, "pod0", &pod, "eth0");
        for (own, others, route, back) in [
            ("10.244.2.1/24", "10.244.2.2/24", "default via 10.244.2.1", "10.244.2.0/24 via 10.77.0.1"),
            ("fd44::1/64", "fd44::2/64", "default via fd44::1", "fd44::/64 via fd77::1"),
        ] {
            address(node, "pod0", own);
            address(&pod, "eth0", others);
            pod.ip(&format!("route add {route}"));
            peer.ip(&format!("route add {back}"));
        }
        node.sysctl("net.ipv4.ip_forward", "1");
        node.sysctl("net.ipv6.conf.all.forwarding", "1");
        Node { scene, pod }
    }

    fn compare(&self, flags: &str) -> Output {
        let peer = self.scene.pair.peer_address(self.scene.family);
        let flags = format!("--compare --exit-verdict -w 2s {flags} {peer} {PORT}");
        netkat(&self.scene.pair.host, &flags).run()
    }

    /// Compares from the pod. `{raw}` stands for a connection of netkat's that meets the node's rules, too.
    fn expect(&self, status: i32, expected: &str) {
        for (events, more) in [(true, ""), (false, "--without drop-events")] {
            let output = self.compare(&format!("--netns {} {more}", self.pod.file().display()));
            self.check(&output, status, &drop_events(expected, events));
        }
    }

    fn check(&self, output: &Output, status: i32, expected: &str) {
        let gateway = if self.scene.family == Family::V4 { "10.244.2.1" } else { "fd44::1" };
        let own = if self.scene.family == Family::V4 { "10.244.2.2" } else { "[fd44::2]" };
        let raw = format!("raw OUTCOME after T {own}:0 > {{peer:7000}} via {gateway}, eth0");
        let outcome = if output.text().contains("raw     connected") { "connected" } else { "timed out" };
        let expected = self.scene.words(&expected.replace("{raw}", &raw.replace("OUTCOME", outcome)));
        check(output, status, &expected);
    }
}

fn in_both(set_up: impl Fn(&Node), status: i32, expected: &str) {
    for family in Family::ALL {
        let node = Node::new(family);
        set_up(&node);
        node.expect(status, expected);
    }
}

#[test]
fn nothing_in_the_way() {
    lab!("socat");
    in_both(
        |_| {},
        0,
        "same: nothing on this host stands between it and {peer:7000}
        kernel connected after T SYN left eth0, SYN-ACK came back
        {raw}",
    );
}

#[test]
fn a_rule_of_the_node() {
    lab!("iptables-nft", "socat");
    in_both(
        |node| {
            node.scene.run(
                "{iptables}-nft -A FORWARD -i pod0 -p tcp --dport 7000 -m comment --comment inside -j DROP",
            )
        },
        11,
        "this host: our SYN is dropped in the node's namespace
        by {iptables} (nft), table filter, chain FORWARD, rule 1 of 1 ({ip} filter FORWARD, handle 2)
        iifname \"pod0\" tcp dport 7000 -m comment --comment \"inside\" counter drop
        which comment \"inside\"
        kernel no answer in T SYN left eth0, nothing came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S FORWARD 1",
    );
    in_both(
        |node| {
            node.scene.run(
                "{iptables}-nft -N DOCKER-USER; {iptables}-nft -A FORWARD -j DOCKER-USER; \
                 {iptables}-nft -A DOCKER-USER -i pod0 -o eth0 -p tcp --dport 7000 -j DROP",
            );
        },
        11,
        "this host: our SYN is dropped in the node's namespace
        by {iptables} (nft), table filter, chain DOCKER-USER, rule 1 of 1 ({ip} filter DOCKER-USER, handle 4), \
         jumped to from FORWARD
        iifname \"pod0\" oifname \"eth0\" tcp dport 7000 counter drop
        which Docker
        kernel no answer in T SYN left eth0, nothing came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S DOCKER-USER 1",
    );
}

/// The answer carries the node's address until conntrack on the node translates it back.
#[test]
fn an_answer_to_a_masqueraded_pod() {
    lab!("iptables-nft", "socat");
    in_both(
        |node| {
            node.scene.run(
                "{iptables}-nft -t nat -A POSTROUTING -o eth0 -j MASQUERADE --random; \
                 {iptables}-nft -A FORWARD -o pod0 -p tcp --sport 7000 -j DROP",
            );
        },
        11,
        "this host: the answer (SYN-ACK) is dropped in the node's namespace
        by {iptables} (nft), table filter, chain FORWARD, rule 1 of 1 ({ip} filter FORWARD, handle 2)
        oifname \"pod0\" tcp sport 7000 counter drop
        kernel no answer in T SYN left eth0, nothing came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S FORWARD 1",
    );
    in_both(
        |node| {
            node.scene.run(
                "{iptables}-nft -t nat -A POSTROUTING -o eth0 -j MASQUERADE --random; \
                 {iptables}-nft -t raw -A PREROUTING -i eth0 -p tcp --sport 7000 -j DROP",
            );
        },
        11,
        "this host: the answer (SYN-ACK) is dropped in the node's namespace
        by {iptables} (nft), table raw, chain PREROUTING, rule 1 of 1 ({ip} raw PREROUTING, handle 2)
        iifname \"eth0\" tcp sport 7000 counter drop
        kernel no answer in T SYN left eth0, nothing came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -t raw -S PREROUTING 1",
    );
}

#[test]
fn a_service_on_the_node() {
    lab!("iptables-nft", "socat");
    in_both(
        |node| {
            node.scene.run(
                "{iptables}-nft -t nat -N KUBE-SEP-X; \
                 {iptables}-nft -t nat -A PREROUTING -p tcp --dport 7000 -m comment --comment default/web:http -j KUBE-SEP-X; \
                 {iptables}-nft -t nat -A KUBE-SEP-X -p tcp -j DNAT --to-destination {other}",
            );
        },
        10,
        "captured: this host answers for {peer:7000}, a client outside may get another answer
        by {iptables} (nft), table nat, chain KUBE-SEP-X, rule 1 of 1 ({ip} nat KUBE-SEP-X, handle 4), \
         jumped to from PREROUTING
        meta l4proto tcp counter -j DNAT --to-destination {other}
        which Kubernetes Service default/web, port http
        kernel connected after T to {other}
        {raw}
        proof nft trace; conntrack
        try {iptables}-nft -t nat -S KUBE-SEP-X 1",
    );
}

#[test]
fn a_rule_of_the_pod() {
    lab!("nft", "socat");
    in_both(
        |node| {
            let rules = "table inet netpol { chain eg { type filter hook output priority 0; tcp dport 7000 drop; }; }";
            crate::support::rules::nft(&node.pod, rules);
        },
        11,
        "this host: our SYN is dropped in the pod's namespace
        by nft inet netpol, chain eg, rule 1 of 1 (handle 2)
        tcp dport 7000 drop
        kernel no answer in T SYN stopped before it left
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try nft -a list chain inet netpol eg",
    );
}

/// A process of the pod stands for its namespace and its user.
#[test]
fn as_a_process_of_the_pod() {
    lab!("iptables-nft", "setpriv", "socat");
    for family in Family::ALL {
        let node = Node::new(family);
        let rule = "{iptables}-nft -A OUTPUT -m owner --uid-owner 1337 -p tcp --dport 7000 -j DROP";
        node.pod.run(&node.scene.words(rule));
        let sleeper = node
            .pod
            .words("setpriv --reuid 1337 --regid 1337 --clear-groups sleep 60")
            .input(Input::Null)
            .spawn();
        let by_namespace = node.compare(&format!("--netns {}", sleeper.id()));
        assert_eq!(by_namespace.code(), Some(0), "{by_namespace}");
        let like = node.compare(&format!("--like {}", sleeper.id()));
        assert_eq!(like.code(), Some(11), "{like}");
        assert!(like.text().starts_with("this host: our SYN is dropped in the pod's namespace\n"), "{like}");
        assert!(steady_text(&like).contains("--uid-owner 1337"), "{like}");
        let none = node.compare("--netns /nonexistent");
        assert_eq!(none.code(), Some(1), "{none}");
        assert!(none.stderr.contains("cannot enter the network namespace /nonexistent"), "{none}");
    }
}

#[test]
fn no_way_through_the_node() {
    lab!("socat");
    let node = Node::new(Family::V4);
    node.scene.pair.host.sysctl("net.ipv4.ip_forward", "0");
    for (flags, place) in [
        (
            "",
            "the kernel: its destination is no address of this host, and forwarding is off \
             (net.ipv4.ip_forward) (IP_INADDRERRORS at ip_error)",
        ),
        ("--without drop-events", "one of: forwarding is off (net.ipv4.ip_forward), no route"),
    ] {
        let output = node.compare(&format!("{flags} --netns {}", node.pod.file().display()));
        assert_eq!(output.code(), Some(11), "{output}");
        let text = output.text();
        assert!(text.starts_with("this host: our SYN is dropped in the node's namespace\n"), "{output}");
        assert!(text.contains(&format!("  by      {place}\n")), "{output}");
    }
}

/// The pod's device is a port of a bridge, as most plugins of container networks make it.
#[test]
fn a_pod_on_a_bridge() {
    lab!("iptables-nft", "nft", "socat");
    for family in Family::ALL {
        let node = Node::new(family);
        let host = &node.scene.pair.host;
        host.ip("link add cni0 type bridge");
        host.ip("address flush dev pod0");
        host.ip("link set pod0 master cni0");
        host.ip("link set cni0 up");
        address(host, "cni0", "10.244.2.1/24");
        address(host, "cni0", "fd44::1/64");
        node.scene.run("{iptables}-nft -A FORWARD -i cni0 -p tcp --dport 7000 -j DROP");
        node.expect(
            11,
            "this host: our SYN is dropped in the node's namespace
            by {iptables} (nft), table filter, chain FORWARD, rule 1 of 1 ({ip} filter FORWARD, handle 2)
            iifname \"cni0\" tcp dport 7000 counter drop
            kernel no answer in T SYN left eth0, nothing came back
            {raw}
            proof nft trace{drop NETFILTER_DROP}
            try {iptables}-nft -S FORWARD 1",
        );
        node.scene.run("{iptables}-nft -F FORWARD");
        node.scene.nft(
            "table bridge fw { chain pods { type filter hook prerouting priority 0; tcp dport 7000 drop; }; }",
        );
        node.expect(
            11,
            "this host: our SYN is dropped in the node's namespace
            by nft bridge fw, chain pods, rule 1 of 1 (handle 2)
            tcp dport 7000 drop
            kernel no answer in T SYN left eth0, nothing came back
            {raw}
            proof nft trace{drop NETFILTER_DROP}
            try nft -a list chain bridge fw pods",
        );
    }
}
