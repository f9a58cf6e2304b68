//! `kubectl netkat matrix`: a Job on all nodes, and a table of what was expected and seen, whatever happens to it. The
//! pods' own script runs here, with shell scripts in netkat's and nc's places.
use super::*;

/// The programs of the pods where all is as it must be: kube-proxy at the node that takes a packet masquerades it.
const NC: &str = r#"while test $# -gt 2; do shift; done
case $NODE in kind-worker) client=172.18.0.3 ;; *) client=172.18.0.4 ;; esac
test ! -e "$KUBECTL_STUB/rules" || . "$KUBECTL_STUB/rules"
echo "Connection to $1 $2 port [tcp/*] succeeded!" >&2
answer() { printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' "${#1}" "$1"; }
cat >/dev/null; answer "$client:4711"; answer web"#;
const NETKAT: &str = r#"via=
while test $# -gt 2; do
    case $1 in --via) via=$2 ;; --json=*) json=${1#--json=} ;; --compare) compare=1 ;; esac
    shift
done
if test -n "$compare"; then printf 'this host: our SYN is dropped\n  by      iptables\n  try     it\n'; exit 1; fi
client=${via:-$1}
test ! -e "$KUBECTL_STUB/rules" || . "$KUBECTL_STUB/rules"
echo '{"verdict":"done"}' >"$json"
answer() { printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' "${#1}" "$1"; }
cat >/dev/null; answer "$client:4711"; answer web"#;

/// Two nodes, and a Service of policy Cluster whose pod is on the second one.
fn two_nodes() -> Cluster {
    let cluster = Cluster::new();
    cluster.write("nodes/b.json", &node("b", "172.18.0.4"));
    cluster.add_service(
        "web",
        json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
            "externalTrafficPolicy": "Cluster", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
    );
    cluster.change_service("web", |s| {
        s["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.111.0.1"}]}})
    });
    let endpoint = json!({"addresses": ["10.244.2.2"], "conditions": {"ready": true}, "nodeName": "b",
        "targetRef": {"kind": "Pod", "name": "web"}});
    cluster.write(
        "endpointslices/web.json",
        &json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}], "endpoints": [endpoint]}),
    );
    cluster.program("nc", NC);
    cluster.program("netkat", NETKAT);
    cluster
}

fn matrix(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster.plugin(&[&["matrix", "web", "--wait", "1"], arguments].concat(), b"")
}

/// Each node asks the ClusterIP, both NodePorts, and the balancer by its kernel and by way of the other node.
const CELLS: usize = 2 * (1 + 2 + 1 + 1);

fn all_as_expected(cluster: &Cluster, output: &Output) {
    let (text, errors) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    assert!(text.ends_with(&format!("\n{CELLS} of {CELLS} as expected\n")), "{text}{errors}");
    assert!(cluster.is_clean(), "something is left");
}

#[test]
fn every_path_from_every_node_is_asked() {
    let cluster = two_nodes();
    let output = matrix(&cluster, &[]);
    all_as_expected(&cluster, &output);
    let rows: Vec<_> = stdout(&output)
        .lines()
        .skip(2)
        .take(CELLS)
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let row = |from: &str, path: &str, node: &str, address: &str| {
        format!("{from} {path} answered, by web, client {node} answered, by web, client {address} ({node})")
    };
    let (worker, b) = ("172.18.0.3", "172.18.0.4");
    let wanted = [
        row("b", "ClusterIP 10.96.0.9:80", "b", b),
        row("b", "NodePort 172.18.0.4:30080 at b", "b", b),
        row("b", "NodePort 172.18.0.3:30080 at kind-worker", "kind-worker", worker),
        row("b", "LB 10.111.0.1:80", "b", b),
        row("b", "LB 10.111.0.1:80 --via kind-worker", "kind-worker", worker),
        row("kind-worker", "ClusterIP 10.96.0.9:80", "kind-worker", worker),
        row("kind-worker", "NodePort 172.18.0.4:30080 at b", "b", b),
        row("kind-worker", "NodePort 172.18.0.3:30080 at kind-worker", "kind-worker", worker),
        row("kind-worker", "LB 10.111.0.1:80", "kind-worker", worker),
        row("kind-worker", "LB 10.111.0.1:80 --via b", "b", b),
    ];
    assert_eq!(rows, wanted);
    let [job] = &cluster.manifests()[..] else { panic!("one Job expected") };
    let spec = &job["spec"];
    assert_eq!(
        (&spec["completionMode"], &spec["completions"], &spec["parallelism"]),
        (&json!("Indexed"), &json!(2), &json!(2))
    );
    assert_eq!(spec["template"]["spec"]["hostNetwork"], true);
}

#[test]
fn nodes_are_asked_in_batches() {
    let cluster = two_nodes();
    all_as_expected(&cluster, &matrix(&cluster, &["--parallel", "1"]));
    let sizes: Vec<_> = cluster.manifests().iter().map(|job| job["spec"]["completions"].clone()).collect();
    assert_eq!(sizes, [1, 1]);
}

#[test]
fn a_difference_is_marked_and_the_rule_is_named() {
    let cluster = two_nodes();
    cluster.put(
        "rules",
        r#"if test "$NODE $1" = "kind-worker 10.111.0.1" && test -z "$json"; then
        echo "nc: connect to $1 port $2 (tcp) timed out: Operation now in progress" >&2; exit 1; fi
        test "$NODE $via" != "kind-worker 172.18.0.4" || client=172.18.0.3"#,
    );
    let output = matrix(&cluster, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    let marked: Vec<_> = text.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(marked.len(), 2, "{text}");
    assert!(marked[0].contains("LB 10.111.0.1:80 ") && marked[0].ends_with("timed out"), "{text}");
    assert!(
        marked[1].contains("--via b") && marked[1].ends_with("client 172.18.0.3 (kind-worker)"),
        "{text}"
    );
    assert!(text.contains("--compare: this host: our SYN is dropped; by iptables\n"), "{text}");
    assert!(text.ends_with("\n8 of 10 as expected\n"), "{text}");
    assert!(cluster.is_clean(), "something is left");
}

#[test]
fn reports_for_programs_and_expectations_from_a_file() {
    let cluster = two_nodes();
    cluster.put("rules", "test \"$NODE $via\" != 'kind-worker 172.18.0.4' || { cat >/dev/null; exit 3; }");
    let junit = matrix(&cluster, &["-o", "junit"]);
    assert_eq!(junit.status.code(), Some(1), "{}", stderr(&junit));
    let words =
        "failures=\"1\"><failure message=\"expected answered, by web, client b; seen timed out; b drops it";
    assert!(!stdout(&junit).contains(words) && stdout(&junit).contains(&words[14..]), "{}", stdout(&junit));
    assert!(stdout(&junit).contains("tests=\"10\" failures=\"1\""), "{}", stdout(&junit));

    let json = matrix(&cluster, &["-o", "json"]);
    assert_eq!(json_schema::check_lines(&stdout(&json)), 1, "{}", stdout(&json));
    let mut report: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let cells = report["cells"].as_array_mut().unwrap();
    assert_eq!((json.status.code(), cells.len()), (Some(1), CELLS));
    let wrong = cells.iter_mut().find(|cell| cell["ok"] == false).unwrap();
    assert_eq!(
        (&wrong["from"], &wrong["path"], &wrong["to"]),
        (&json!("kind-worker"), &json!("load_balancer"), &json!("b"))
    );
    // --expect takes the outcomes of an earlier report, or of entries by hand, as the expected ones.
    wrong["expected"] = json!({"outcomes": ["timed_out"]});
    cluster.write("report", &report);
    cluster.write(
        "entry",
        &json!([{"path": "load_balancer", "to": "b", "expected": {"outcomes": ["timed_out"]}}]),
    );
    for file in ["report", "entry"] {
        let file = cluster.folder.join(file).display().to_string();
        all_as_expected(&cluster, &matrix(&cluster, &["--expect", &file]));
    }
    cluster.put("entry", "[{\"expected\": {\"outcome\": 1}}]");
    let file = cluster.folder.join("entry").display().to_string();
    let wrong = matrix(&cluster, &["--expect", &file]);
    assert_eq!(wrong.status.code(), Some(125), "{}", stderr(&wrong));
}

/// A table without rows is no success.
#[test]
fn nodes_without_an_address_of_the_family_are_named() {
    let cluster = two_nodes();
    cluster.change_service("web", |s| {
        s["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        s["spec"]["clusterIPs"] = json!(["10.96.0.9", "fd00::9"]);
    });
    let without = "kubectl-netkat: IPv6 is not asked from b, kind-worker: no InternalIP of this family\n";
    let both = matrix(&cluster, &[]);
    assert!(stderr(&both).contains(without), "{}", stderr(&both));
    all_as_expected(&cluster, &both);
    let six = matrix(&cluster, &["--family", "6"]);
    assert_eq!((six.status.code(), stdout(&six).as_str()), (Some(125), ""), "{}", stderr(&six));
    assert!(
        stderr(&six).ends_with(&format!("{without}kubectl-netkat: there is nothing to ask\n")),
        "{}",
        stderr(&six)
    );
}

#[test]
fn a_node_whose_pod_never_starts_is_a_row() {
    let cluster = two_nodes();
    cluster.put("never-starts.b", "");
    let output = matrix(&cluster, &["--timeout", "1"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    let marked: Vec<_> = text.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(marked.len(), 1, "{text}");
    assert!(marked[0].starts_with("! b") && marked[0].ends_with("not asked"), "{text}");
    assert!(text.contains("cause: Pending ErrImagePull failed to pull"), "{text}");
    assert!(text.ends_with("\n5 of 10 as expected\n"), "{text}");
    assert!(cluster.is_clean(), "something is left");
}

#[test]
fn a_node_that_is_not_ready_is_a_row_and_no_target() {
    let cluster = two_nodes();
    let mut gone = node("c", "172.18.0.5");
    gone["status"]["conditions"][0] = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status."});
    cluster.write("nodes/c.json", &gone);
    let output = matrix(&cluster, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.ends_with("\n10 of 11 as expected\n") && !text.contains("172.18.0.5"), "{text}");
    let words = "cause: NodeStatusUnknown: Kubelet stopped posting node status.";
    assert!(text.contains(words) && text.contains("! c "), "{text}");
    // With --from, a node that is not asked gets no row.
    let others = matrix(&cluster, &["--from", "b,kind-worker"]);
    all_as_expected(&cluster, &others);
}

#[test]
fn an_evicted_pod_is_replaced() {
    let cluster = two_nodes();
    cluster.put("evicted.b", "");
    all_as_expected(&cluster, &matrix(&cluster, &[]));
}

#[test]
fn errors_of_the_server_in_the_middle_pass() {
    let cluster = two_nodes();
    cluster.put("fail-get-pods", "2 times: Error from server: etcdserver: request timed out");
    cluster.put(
        "fail-logs",
        "2 times: Error from server: Get \"https://172.18.0.4:10250/\": dial tcp: i/o timeout",
    );
    all_as_expected(&cluster, &matrix(&cluster, &[]));
}

#[test]
fn what_cannot_be_asked_is_told_before_a_pod_starts() {
    let cluster = two_nodes();
    cluster.add_service("name", json!({"type": "ExternalName", "externalName": "example.org"}));
    for (arguments, words) in [
        (&["matrix", "absent"][..], "services \"absent\" not found"),
        (&["matrix", "name"], "type ExternalName and has no port"),
        (&["matrix", "web", "--port", "dns"], "no port 'dns', but 80 (http)"),
        (&["matrix", "web", "--from", "b,nowhere"], "there is no node nowhere"),
        (&["matrix", "web", "--family", "6"], "no IPv6 address"),
    ] {
        let output = cluster.plugin(arguments, b"");
        assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    cluster.put(
        "fail-create",
        "Error from server (Forbidden): pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\"",
    );
    let output = matrix(&cluster, &[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("pod-security.kubernetes.io/enforce=privileged"), "{}", stderr(&output));
    assert!(cluster.files("created").is_empty());
}

/// Pod Security lets the Job in, and its pods out.
#[test]
fn a_namespace_that_forbids_the_jobs_pods_is_told_with_the_label() {
    let cluster = two_nodes();
    cluster.put("forbids-pods", "");
    let message =
        "Error creating: pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces";
    cluster.write("events", &json!([{"reason": "FailedCreate", "message": message}]));
    let start = Instant::now();
    let output = matrix(&cluster, &[]);
    assert!(start.elapsed() < PATIENCE, "it waited for the time-out");
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("pod-security.kubernetes.io/enforce=privileged"), "{}", stderr(&output));
    assert!(cluster.is_clean(), "something is left");
}

/// Interrupts the matrix while `step` lasts: a verb that a slow server answers late, or pods that do not start.
fn interrupted_during(step: &str) {
    let cluster = two_nodes();
    cluster.put("rules", "test -z \"$json\" || { cat >/dev/null; exit 3; }");
    cluster.put(&if step == "wait" { "not-ready".to_owned() } else { format!("slow-{step}") }, "");
    if step == "exec" {
        cluster.put("exec", "sleep 20");
        cluster.put("rules", "test -n \"$json\" || { echo refused >&2; exit 1; }");
    }
    let mut plugin = cluster.script("kubectl-netkat");
    let plugin = plugin.args(["matrix", "web", "--wait", "1"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut plugin = Running(plugin.stderr(Stdio::null()).spawn().unwrap());
    let asks = |c: &Vec<String>| match step {
        "wait" => c[..2] == ["get", "pods"],
        verb => c[0] == verb,
    };
    until("the step begins", || cluster.calls().iter().any(asks));
    plugin.signal(Signal::SIGINT);
    sleep(Duration::from_millis(100));
    let _ = fs::remove_file(cluster.folder.join(format!("slow-{step}")));
    // A clean-up that has begun ends, and the verdict stands or the interrupt is the status.
    let code = plugin.0.wait().unwrap().code();
    assert_eq!(code, Some(130), "{step}");
    assert!(cluster.is_clean(), "{step}: something is left");
}

#[test]
fn an_interrupt_at_each_step_removes_the_job() {
    for step in ["get", "create", "wait", "logs", "exec", "delete"] {
        interrupted_during(step);
    }
}
