//! `kubectl netkat NODE`: a pod that comes, runs netkat and goes, whatever happens.
use super::*;

fn run(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = cluster
        .script("kubectl-netkat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that ends before it reads leaves a broken pipe, which is no matter here.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn runs_netkat_on_the_node_and_passes_everything_through() {
    let cluster = Cluster::new();
    cluster.put("exec", "printf '[%s]' \"$@\" >&2; echo >&2; cat; exit 3");
    let input: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
    let output = run(&cluster, &["kind-worker", "-w", "5", "a \"quoted\" $word", "80"], &input);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(output.stdout, input);
    assert_eq!(stderr(&output), "[netkat][-w][5][a \"quoted\" $word][80]\n");

    assert!(cluster.files("pods").is_empty(), "the pod is still there");
    let [pod] = &cluster.files("created")[..] else { panic!("one pod expected") };
    let manifest = fs::read_to_string(cluster.folder.join("created").join(pod)).unwrap();
    assert!(manifest.contains("\n  nodeName: \"kind-worker\"\n"), "{manifest}");
    assert!(manifest.contains("\n    app.kubernetes.io/managed-by: kubectl-netkat\n"), "{manifest}");
    assert!(manifest.contains("\n      image: netkat:shell\n"), "{manifest}");
    // What this run does not set stays as it is in the file.
    let original = fs::read_to_string(format!("{ROOT}/packaging/kubernetes/netkat.yaml")).unwrap();
    let added = manifest.lines().filter(|l| !original.contains(l)).count();
    assert_eq!((added, manifest.lines().count()), (3, original.lines().count() + 1), "{manifest}");
}

#[test]
fn two_runs_have_pods_of_their_own() {
    let cluster = Cluster::new();
    cluster.put("exec", "");
    for _ in 0..2 {
        assert!(run(&cluster, &["kind-worker"], b"").status.success());
    }
    assert_eq!(cluster.files("created").len(), 2);
}

#[test]
fn options_before_the_node_are_kubectl_s() {
    let cluster = Cluster::new();
    cluster.put("exec", "printf %s \"$*\"");
    let options = ["-n", "tools", "--context", "lab", "--image", "example.org/netkat:1", "kind-worker", "-n"];
    let output = run(&cluster, &options, b"");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "netkat -n", "{}", stderr(&output));
    let calls = cluster.calls();
    assert!(calls.len() >= 5, "{calls:?}");
    for call in calls {
        assert_eq!(call[..4], ["--namespace", "tools", "--context", "lab"], "{call:?}");
    }
    let pod = cluster.files("created").remove(0);
    let manifest = fs::read_to_string(cluster.folder.join("created").join(pod)).unwrap();
    assert!(manifest.contains("\n      image: \"example.org/netkat:1\"\n"), "{manifest}");
}

/// The signal reaches the script alone, which is the harder case: a terminal's goes to kubectl too.
fn interrupted_while(phase: &str, signal: Signal, status: i32) {
    let cluster = Cluster::new();
    cluster.put("exec", "echo $$ >\"$KUBECTL_STUB/pid\"; mv \"$KUBECTL_STUB/pid\" \"$KUBECTL_STUB/netkat-runs\"; exec sleep 60");
    if phase == "wait" {
        cluster.put("not-ready", "");
    }
    let mut child = Running(
        cluster
            .script("kubectl-netkat")
            .args(["kind-worker", "-l", "80"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let verb = |c: &Vec<String>| c[0] == phase;
    until("the phase begins", || cluster.calls().iter().any(verb));
    until("netkat runs", || phase == "wait" || cluster.folder.join("netkat-runs").exists());
    assert_eq!(cluster.files("pods").len(), 1);
    let start = Instant::now();
    child.signal(signal);
    assert_eq!(child.0.wait().unwrap().code(), Some(status));
    assert!(start.elapsed() < PATIENCE);
    assert!(cluster.files("pods").is_empty(), "the pod is still there");
    if let Ok(pid) = fs::read_to_string(cluster.folder.join("netkat-runs")) {
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        until("kubectl exec ends too", || kill(pid, None).is_err());
    }
}

#[test]
fn an_interrupt_removes_the_pod() {
    interrupted_while("exec", Signal::SIGINT, 130);
}

#[test]
fn termination_removes_the_pod() {
    interrupted_while("exec", Signal::SIGTERM, 143);
}

#[test]
fn a_hang_up_while_the_pod_starts_removes_it() {
    interrupted_while("wait", Signal::SIGHUP, 129);
}

#[test]
fn what_fails_before_netkat_runs_has_a_status_of_its_own() {
    for (verb, message) in [
        ("create", "error validating data"),
        ("wait", "timed out waiting for the condition"),
        ("get", "Unable to connect to the server"),
    ] {
        let cluster = Cluster::new();
        cluster.put("exec", "");
        cluster.put(&format!("fail-{verb}"), message);
        let output = run(&cluster, &["kind-worker", "host", "80"], b"");
        assert_eq!(output.status.code(), Some(125), "{verb}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{verb}: {}", stderr(&output));
        assert!(stderr(&output).contains("kubectl-netkat: "), "{verb}: {}", stderr(&output));
        assert!(cluster.files("pods").is_empty(), "{verb}: the pod is still there");
        assert!(!cluster.calls().iter().any(|c| c[0] == "exec"), "{verb}: netkat ran all the same");
    }
}

/// kubectl says so after netkat's own line, which says it better.
#[test]
fn kubectls_line_about_the_status_is_left_out() {
    let cluster = Cluster::new();
    cluster
        .put("exec", "echo 'netkat: timed out' >&2; echo 'command terminated with exit code 3' >&2; exit 3");
    let output = run(&cluster, &["kind-worker", "host", "80"], b"");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(3), "netkat: timed out\n"));
}

#[test]
fn a_pod_that_has_ended_is_not_waited_for() {
    let cluster = Cluster::new();
    cluster.put("not-ready", "");
    cluster.put("pod-state", "Failed  StartError exec: \"sh\": executable file not found");
    cluster.put("events", "BackOff: Back-off restarting failed container");
    let start = Instant::now();
    let output = run(&cluster, &["kind-worker", "host", "80"], b"");
    assert!(start.elapsed() < PATIENCE, "it waited for the time-out");
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    for part in ["Failed StartError exec: \"sh\": executable file not found", "BackOff: Back-off restarting"]
    {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert!(cluster.files("pods").is_empty(), "the pod is still there");
}

#[test]
fn a_namespace_that_forbids_the_pod_is_told_with_the_label() {
    let cluster = Cluster::new();
    let message = "Error from server (Forbidden): error when creating \"STDIN\": pods \"x\" is forbidden: violates \
                   PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), non-default capabilities";
    cluster.put("fail-create", message);
    let output = run(&cluster, &["kind-worker", "host", "80"], b"");
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
    let output = run(&cluster, &["-n", "tools", "--context", "lab", "kind-worker", "host", "80"], b"");
    assert_eq!(output.status.code(), Some(1), "netkat's status stands");
    let pod = cluster.files("pods").remove(0);
    let command = format!("kubectl delete pod {pod} --namespace tools --context lab\n");
    assert!(stderr(&output).contains(&command), "{}", stderr(&output));
}

#[test]
fn nonsense_is_refused_before_anything_is_created() {
    for arguments in [
        &[][..],
        &["-x", "kind-worker"],
        &["--image"],
        &["--timeout", "soon", "kind-worker"],
        &["--image", "a\" b", "kind-worker"],
        &["--manifest", "/nonexistent", "kind-worker"],
        &["--manifest", "/dev/null", "kind-worker"],
        &["Kind\nWorker"],
        &["kind-worker3", "host", "80"],
    ] {
        let cluster = Cluster::new();
        let output = run(&cluster, arguments, b"");
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
        assert!(cluster.files("created").is_empty(), "{arguments:?}");
    }
}
