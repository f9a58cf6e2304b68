//! `kubectl netkat NODE` and `sniff`: a pod that comes, runs netkat and goes, whatever happens.
use super::*;

#[test]
fn runs_netkat_on_the_node_and_passes_everything_through() {
    let cluster = Cluster::new();
    cluster.put("exec", "printf '[%s]' \"$@\" >&2; echo >&2; cat; exit 3");
    let input: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
    let output = cluster.plugin(&["kind-worker", "-w", "5", "a \"quoted\" $word", "80"], &input);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(output.stdout, input);
    assert_eq!(stderr(&output), "[netkat][-w][5][a \"quoted\" $word][80]\n");

    assert!(cluster.is_clean(), "the pod is still there");
    let [pod] = &cluster.manifests()[..] else { panic!("one pod expected") };
    assert_eq!(pod["spec"]["nodeName"], "kind-worker");
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/managed-by"], "kubectl-netkat");
    assert_eq!(pod["spec"]["containers"][0]["image"], "netkat:shell");
}

#[test]
fn two_runs_have_pods_of_their_own() {
    let cluster = Cluster::new();
    cluster.put("exec", "");
    for _ in 0..2 {
        assert!(cluster.plugin(&["kind-worker"], b"").status.success());
    }
    assert_eq!(cluster.files("created").len(), 2);
}

#[test]
fn options_before_the_node_are_kubectl_s() {
    let cluster = Cluster::new();
    cluster.put("exec", "printf %s \"$*\"");
    let options = [
        "-n",
        "tools",
        "--context",
        "lab",
        "--image",
        "example.org/netkat:1",
        "--seccomp",
        "netkat-run-seccomp.json",
        "kind-worker",
        "-n",
    ];
    let output = cluster.plugin(&options, b"");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "netkat -n", "{}", stderr(&output));
    let calls = cluster.calls();
    assert!(calls.len() >= 5, "{calls:?}");
    for call in calls {
        assert_eq!(call[..4], ["--namespace", "tools", "--context", "lab"], "{call:?}");
    }
    let container = &cluster.manifests()[0]["spec"]["containers"][0];
    assert_eq!(container["image"], "example.org/netkat:1");
    assert_eq!(
        container["securityContext"]["seccompProfile"],
        json!({"type": "Localhost", "localhostProfile": "netkat-run-seccomp.json"})
    );
}

/// The signal reaches the plugin alone, which is the harder case: a terminal's goes to kubectl exec, too. `step` is
/// the verb during which it comes; with a slow server the verb takes effect, and its answer comes late.
fn interrupted_during(step: &str, signal: Signal, status: i32) {
    let cluster = Cluster::new();
    let exec = "echo $$ >\"$KUBECTL_STUB/pid\"; mv \"$KUBECTL_STUB/pid\" \"$KUBECTL_STUB/netkat-runs\"; exec sleep 60";
    cluster.put("exec", if step == "delete" { "" } else { exec });
    cluster.put(&if step == "wait" { "not-ready".to_owned() } else { format!("slow-{step}") }, "");
    let mut plugin = cluster.script("kubectl-netkat");
    let plugin = plugin.args(["kind-worker", "-l", "80"]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut plugin = Running(plugin.spawn().unwrap());
    let asks = |c: &Vec<String>| match step {
        "wait" => c[..2] == ["get", "pod"],
        verb => c[0] == verb,
    };
    until("the step begins", || cluster.calls().iter().any(asks));
    let runs = cluster.folder.join("netkat-runs");
    until("netkat runs", || step != "exec" || runs.exists());
    plugin.signal(signal);
    if step != "wait" && step != "exec" {
        sleep(Duration::from_millis(100));
        let _ = fs::remove_file(cluster.folder.join(format!("slow-{step}")));
    }
    assert_eq!(plugin.0.wait().unwrap().code(), Some(status), "{step}");
    assert!(cluster.is_clean(), "{step}: the pod is still there");
    assert_eq!(cluster.files("created").len(), usize::from(step != "get"), "{step}");
    if let Ok(pid) = fs::read_to_string(runs) {
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        until("kubectl exec ends too", || kill(pid, None).is_err());
    }
}

#[test]
fn an_interrupt_at_each_step_removes_the_pod() {
    for step in ["get", "create", "wait", "exec"] {
        interrupted_during(step, Signal::SIGINT, 130);
    }
}

#[test]
fn termination_and_hang_up_remove_the_pod() {
    interrupted_during("exec", Signal::SIGTERM, 143);
    interrupted_during("create", Signal::SIGTERM, 143);
    interrupted_during("wait", Signal::SIGHUP, 129);
}

/// netkat has ended by then, and its status stands.
#[test]
fn an_interrupt_does_not_stop_the_clean_up() {
    interrupted_during("delete", Signal::SIGINT, 0);
}

#[test]
fn what_fails_before_netkat_runs_has_a_status_of_its_own() {
    for (verb, message) in [("create", "error validating data"), ("get", "Unable to connect to the server")] {
        let cluster = Cluster::new();
        cluster.put("exec", "");
        cluster.put(&format!("fail-{verb}"), message);
        let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
        assert_eq!(output.status.code(), Some(125), "{verb}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{verb}: {}", stderr(&output));
        assert!(stderr(&output).contains("kubectl-netkat: "), "{verb}: {}", stderr(&output));
        assert!(cluster.is_clean(), "{verb}: the pod is still there");
        assert!(!cluster.calls().iter().any(|c| c[0] == "exec"), "{verb}: netkat ran all the same");
    }
}

/// kubectl says so after netkat's own line, which says it better.
#[test]
fn kubectls_line_about_the_status_is_left_out() {
    let cluster = Cluster::new();
    cluster
        .put("exec", "echo 'netkat: timed out' >&2; echo 'command terminated with exit code 3' >&2; exit 3");
    let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(3), "netkat: timed out\n"));
}

/// Statuses as kubelet and the node lifecycle controller write them.
#[test]
fn a_pod_that_has_ended_is_not_waited_for() {
    let terminated = json!({"reason": "StartError", "message": "exec: \"sh\": executable file not found", "exitCode": 128});
    for (status, words) in [
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "netkat", "state": {"terminated": terminated}}]}),
            "Failed StartError exec: \"sh\": executable file not found",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            "Failed Evicted The node was low on resource: memory.",
        ),
    ] {
        let cluster = Cluster::new();
        cluster.write("pod-status", &status);
        cluster.write(
            "events",
            &json!([{"reason": "BackOff", "message": "Back-off restarting failed container"}]),
        );
        let start = Instant::now();
        let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
        assert!(start.elapsed() < PATIENCE, "it waited for the time-out");
        assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
        for part in [words, "BackOff: Back-off restarting"] {
            assert!(stderr(&output).contains(part), "{}", stderr(&output));
        }
        assert!(cluster.is_clean(), "the pod is still there");
    }
}

#[test]
fn a_pod_that_never_starts_is_told_with_its_reason() {
    let cluster = Cluster::new();
    let waiting =
        json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"netkat:shell\"\u{1b}[2J"});
    let status =
        json!({"phase": "Pending", "containerStatuses": [{"name": "netkat", "state": {"waiting": waiting}}]});
    cluster.write("pod-status", &status);
    let output = cluster.plugin(&["--timeout", "1", "kind-worker", "host", "80"], b"");
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    let words = "within 1 s: Pending ImagePullBackOff Back-off pulling image \"netkat:shell\" [2J\n";
    assert!(stderr(&output).contains(words), "{:?}", stderr(&output));
    assert!(cluster.is_clean(), "the pod is still there");
}

#[test]
fn errors_of_the_server_in_the_middle_pass() {
    let cluster = Cluster::new();
    cluster.put("exec", "echo done");
    cluster.put("fail-get-pod", "3 times: Error from server: etcdserver: request timed out");
    let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "done\n"), "{}", stderr(&output));
}

#[test]
fn sniffs_a_node_and_a_pod_on_its_node() {
    let cluster = Cluster::new();
    cluster.put("exec", "printf '[%s]' \"$@\"");
    let pod = json!({"kind": "Pod", "metadata": {"name": "web-0", "uid": "6f1c-22"}, "status": {"phase": "Running"},
        "spec": {"nodeName": "kind-worker", "containers": [{}]}});
    cluster.write("pods/web-0", &pod);
    let node = cluster.plugin(&["sniff", "kind-worker", "port 80"], b"");
    assert_eq!(stdout(&node), "[netkat][--sniff][-i][any][--pcap][-][port 80]", "{}", stderr(&node));
    for name in ["web-0", "pod/web-0"] {
        let output = cluster.plugin(&["sniff", name, "-i", "eth0"], b"");
        let text = stdout(&output);
        assert!(text.ends_with("[sniff][6f1c[-_]22][--pcap][-][-i][eth0]"), "{text}{}", stderr(&output));
        assert!(text.contains("netkat --sniff --netns \"$pid\""), "{text}");
    }
    let rights = |pod: &Value| pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"].clone();
    let manifests = cluster.manifests();
    let of_pods: Vec<_> = manifests.iter().filter(|m| m["spec"]["hostPID"] == true).collect();
    assert_eq!((manifests.len(), of_pods.len()), (3, 2));
    assert!(
        of_pods.iter().all(|m| rights(m).as_array().unwrap().contains(&json!("SYS_ADMIN"))),
        "{of_pods:?}"
    );
    let neither = cluster.plugin(&["sniff", "nobody"], b"");
    assert_eq!(neither.status.code(), Some(125));
    assert!(stderr(&neither).contains("'nobody' is neither a node nor a pod here"), "{}", stderr(&neither));
    assert_eq!(cluster.files("pods"), ["web-0"]);
}

#[test]
fn a_namespace_that_forbids_the_pod_is_told_with_the_label() {
    let cluster = Cluster::new();
    let message = "Error from server (Forbidden): error when creating \"STDIN\": pods \"x\" is forbidden: violates \
                   PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), non-default capabilities";
    cluster.put("fail-create", message);
    let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
    assert_eq!(output.status.code(), Some(125));
    let lines = stderr(&output);
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("pod-security.kubernetes.io/enforce=privileged"), "{lines}");
}

#[test]
fn a_pod_that_cannot_be_removed_is_named() {
    let cluster = Cluster::new();
    cluster.put("exec", "exit 1");
    cluster.put("fail-delete", "Unable to connect to the server");
    let output = cluster.plugin(&["-n", "tools", "--context", "lab", "kind-worker", "host", "80"], b"");
    assert_eq!(output.status.code(), Some(1), "netkat's status stands");
    let pod = cluster.files("pods").remove(0);
    let command = format!("kubectl delete pod {pod} --namespace tools --context lab\n");
    assert!(stderr(&output).contains(&command), "{}", stderr(&output));

    let output = cluster.plugin(&["kind-worker", "host", "80"], b"");
    let ending = "--namespace default --context kind-kind\n";
    assert!(stderr(&output).ends_with(ending), "the kubeconfig's own: {}", stderr(&output));
}

#[test]
fn nonsense_is_refused_before_anything_is_created() {
    for arguments in [
        &[][..],
        &["-x", "kind-worker"],
        &["--image"],
        &["--timeout", "soon", "kind-worker"],
        &["--image", "a\" b", "kind-worker"],
        &["--seccomp"],
        &["matrix"],
        &["matrix", "clientip", "--family", "5"],
        &["matrix", "clientip", "--ask", "no path"],
        &["matrix", "clientip", "--as", "here"],
        &["matrix", "clientip", "--parallel", "0"],
        &["matrix", "clientip"],
        &["sniff"],
        &["sniff", "service/x"],
        &["Kind\nWorker"],
        &["kind-worker3", "host", "80"],
    ] {
        let cluster = Cluster::new();
        let output = cluster.plugin(arguments, b"");
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
        assert!(cluster.files("created").is_empty(), "{arguments:?}");
    }
}
