//! The tools for a real cluster, against a kubectl that stands in for one (tests/cluster/kubectl).
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster in a folder, as the stub's kubectl serves it.
struct Cluster {
    folder: PathBuf,
}

impl Cluster {
    fn new() -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "cluster-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        for part in ["bin", "services", "nodes", "pods", "created"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        std::os::unix::fs::symlink(format!("{ROOT}/tests/cluster/kubectl"), folder.join("bin/kubectl"))
            .unwrap();
        let cluster = Cluster { folder };
        cluster.write("nodes/kind-worker.json", &node("kind-worker", "172.18.0.3"));
        cluster
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(format!("{ROOT}/scripts/{name}"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("KUBECTL_STUB", &self.folder)
            .env_remove("NETKAT_MANIFEST");
        command
    }

    /// Written by rename, so that nobody reads half of it.
    fn write(&self, file: &str, value: &Value) {
        let scratch = self.folder.join("scratch");
        fs::write(&scratch, value.to_string()).unwrap();
        fs::rename(scratch, self.folder.join(file)).unwrap();
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.folder.join(file)).unwrap();
    }

    fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn files(&self, part: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(part)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn add_service(&self, name: &str, spec: Value) {
        // Names are given in the order of creation.
        self.write(
            &format!("services/default.{name}.json"),
            &json!({
                "kind": "Service",
                "metadata": {"name": name, "namespace": "default", "resourceVersion": "1"},
                "spec": spec,
                "status": {"loadBalancer": {}},
            }),
        );
    }

    fn service(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.folder.join(format!("services/default.{name}.json"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn change_service(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut service = self.service(name);
        change(&mut service);
        self.write(&format!("services/default.{name}.json"), &service);
    }

    /// The addresses in a Service's status.
    fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = self.service(name)["status"]["loadBalancer"]["ingress"].clone();
        let ingress = ingress.as_array().cloned().unwrap_or_default();
        ingress.iter().map(|i| i["ip"].as_str().unwrap().to_owned()).collect()
    }

    fn set_right(&self, ranges: &[&str]) -> Output {
        let mut command = self.script("fake-loadbalancer");
        command.arg("--once");
        for range in ranges {
            command.args(["--iprange", range]);
        }
        command.output().unwrap()
    }

    fn controller(&self, range: &str) -> Running {
        Running(
            self.script("fake-loadbalancer")
                .args(["--iprange", range])
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that ends with its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn node(name: &str, address: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}, "status": {"addresses": [
        {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}})
}

fn balanced() -> Value {
    json!({"type": "LoadBalancer", "clusterIP": "10.96.166.13", "ipFamilies": ["IPv4"]})
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

mod plugin {
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
        cluster.put("exec", "printf '[%s]' \"$@\" >&2; cat; exit 3");
        let input: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
        let output = run(&cluster, &["kind-worker", "-w", "5", "a \"quoted\" $word", "80"], &input);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert_eq!(output.stdout, input);
        assert_eq!(stderr(&output), "[netkat][-w][5][a \"quoted\" $word][80]");

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
        let options =
            ["-n", "tools", "--context", "lab", "--image", "example.org/netkat:1", "kind-worker", "-n"];
        let output = run(&cluster, &options, b"");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "netkat -n", "{}", stderr(&output));
        let calls = cluster.calls();
        assert_eq!(calls.len(), 5, "{calls:?}");
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
        cluster.put("exec", "touch \"$KUBECTL_STUB/netkat-runs\"; exec sleep 60");
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

    #[test]
    fn a_pod_that_cannot_be_removed_is_named() {
        let cluster = Cluster::new();
        cluster.put("exec", "exit 1");
        cluster.put("fail-delete", "Unable to connect to the server");
        let output = run(&cluster, &["kind-worker", "host", "80"], b"");
        assert_eq!(output.status.code(), Some(1), "netkat's status stands");
        let pod = cluster.files("pods").remove(0);
        assert!(stderr(&output).contains(&format!("kubectl delete pod {pod}")), "{}", stderr(&output));
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
}

mod fake_loadbalancer {
    use super::*;

    #[test]
    fn gives_the_first_free_address_to_those_that_ask_and_no_other() {
        let cluster = Cluster::new();
        cluster.write("nodes/edge.json", &node("edge", "10.111.111.129"));
        cluster.add_service("a-internal", json!({"type": "ClusterIP", "clusterIP": "10.111.111.130"}));
        cluster.add_service(
            "b-foreign",
            json!({"type": "LoadBalancer", "loadBalancerClass": "example.org/other", "externalIPs": ["10.111.111.131"]}),
        );
        cluster.add_service("c", balanced());
        cluster.add_service("d", balanced());
        let output = cluster.set_right(&["10.111.111.128/29"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(cluster.addresses("c"), ["10.111.111.132"]);
        assert_eq!(cluster.addresses("d"), ["10.111.111.133"]);
        assert!(cluster.addresses("a-internal").is_empty() && cluster.addresses("b-foreign").is_empty());
        // Only the status is written, nothing is written twice.
        let patches = || cluster.calls().into_iter().filter(|c| c[0] == "patch").collect::<Vec<_>>();
        assert!(patches().iter().all(|c| c.contains(&"--subresource=status".to_owned())), "{:?}", patches());
        assert!(cluster.set_right(&["10.111.111.128/29"]).status.success());
        assert_eq!(patches().len(), 2);
    }

    /// Six hosts in a /29: neither 10.0.0.0 nor 10.0.0.7 is ever given.
    #[test]
    fn a_full_range_gives_no_more_until_something_goes() {
        let cluster = Cluster::new();
        for n in 1..=7 {
            cluster.add_service(&format!("s{n}"), balanced());
        }
        let output = cluster.set_right(&["10.0.0.0/29"]);
        for n in 1..=6 {
            assert_eq!(cluster.addresses(&format!("s{n}")), [format!("10.0.0.{n}")]);
        }
        assert!(cluster.addresses("s7").is_empty());
        assert!(stderr(&output).contains("default/s7: no free IPv4 address"), "{}", stderr(&output));
        cluster.remove("services/default.s3.json");
        cluster.set_right(&["10.0.0.0/29"]);
        assert_eq!(cluster.addresses("s7"), ["10.0.0.3"]);
    }

    #[test]
    fn an_address_is_taken_back_when_the_type_changes() {
        let cluster = Cluster::new();
        cluster.add_service("s", balanced());
        cluster.set_right(&["10.0.0.0/29"]);
        assert_eq!(cluster.addresses("s"), ["10.0.0.1"]);
        cluster.change_service("s", |s| s["spec"]["type"] = json!("NodePort"));
        cluster.set_right(&["10.0.0.0/29"]);
        assert!(cluster.addresses("s").is_empty());
    }

    #[test]
    fn addresses_of_others_are_left_alone() {
        let cluster = Cluster::new();
        let given =
            |ip| move |s: &mut Value| s["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        cluster.add_service("elsewhere", json!({"type": "NodePort"}));
        cluster.change_service("elsewhere", given("192.0.2.1"));
        cluster
            .add_service("class", json!({"type": "LoadBalancer", "loadBalancerClass": "example.org/other"}));
        cluster.change_service("class", given("10.0.0.1"));
        cluster.add_service("ours", balanced());
        cluster.set_right(&["10.0.0.0/29"]);
        assert_eq!(cluster.addresses("elsewhere"), ["192.0.2.1"]);
        assert_eq!(cluster.addresses("class"), ["10.0.0.1"]);
        assert_eq!(cluster.addresses("ours"), ["10.0.0.2"]);
    }

    #[test]
    fn a_wish_is_granted_or_told() {
        let cluster = Cluster::new();
        for (name, wish) in [("a", "10.0.0.4"), ("b", "10.0.0.4"), ("c", "10.0.0.7"), ("d", "192.0.2.1")] {
            cluster.add_service(name, json!({"type": "LoadBalancer", "loadBalancerIP": wish}));
        }
        let output = cluster.set_right(&["10.0.0.0/29"]);
        assert_eq!(cluster.addresses("a"), ["10.0.0.4"]);
        for (name, wish) in [("b", "10.0.0.4"), ("c", "10.0.0.7"), ("d", "192.0.2.1")] {
            assert!(cluster.addresses(name).is_empty(), "{name}");
            let told = format!("default/{name}: no free IPv4 address, it asks for {wish}");
            assert!(stderr(&output).contains(&told), "{}", stderr(&output));
        }
    }

    #[test]
    fn ipv6_and_dual_stack() {
        let cluster = Cluster::new();
        cluster.add_service("six", json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"]}));
        cluster.add_service("two", json!({"type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"]}));
        cluster.set_right(&["fd00:1::/64"]);
        assert_eq!(cluster.addresses("six"), ["fd00:1::1"]);
        assert_eq!(cluster.addresses("two"), ["fd00:1::2"]);
        cluster.set_right(&["fd00:1::/64", "10.0.0.0/30"]);
        assert_eq!(cluster.addresses("six"), ["fd00:1::1"]);
        assert_eq!(cluster.addresses("two"), ["fd00:1::2", "10.0.0.1"]);
    }

    #[test]
    fn the_smallest_ranges_are_hosts_all_through() {
        for (range, addresses) in
            [("10.0.0.6/31", &["10.0.0.6", "10.0.0.7"][..]), ("10.0.0.6/32", &["10.0.0.6"])]
        {
            let cluster = Cluster::new();
            cluster.add_service("a", balanced());
            cluster.add_service("b", balanced());
            cluster.set_right(&[range]);
            assert_eq!([cluster.addresses("a"), cluster.addresses("b")].concat(), addresses);
        }
    }

    #[test]
    fn one_service_that_cannot_be_written_does_not_hold_up_the_others() {
        let cluster = Cluster::new();
        cluster.add_service("a", balanced());
        cluster.add_service("b", balanced());
        // The stub finds its files by name and namespace: this one is never found.
        cluster.change_service("a", |s| s["metadata"]["namespace"] = json!("away"));
        let output = cluster.set_right(&["10.0.0.0/29"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("away/a: "), "{}", stderr(&output));
        assert_eq!(cluster.addresses("b"), ["10.0.0.2"]);
    }

    #[test]
    fn follows_the_cluster_through_restarts_and_a_vanished_api_server() {
        let cluster = Cluster::new();
        cluster.put("down", "");
        let controller = cluster.controller("10.0.0.0/29");
        until("it asks in vain", || {
            cluster.calls().iter().any(|c| c[0] == "get" && c.contains(&"json".to_owned()))
        });
        cluster.add_service("a", balanced());
        cluster.remove("down");
        until("a has its address", || cluster.addresses("a") == ["10.0.0.1"]);
        cluster.add_service("b", balanced());
        until("b has its address", || cluster.addresses("b") == ["10.0.0.2"]);

        // Killed at once and started anew, it goes on from what the cluster says.
        drop(controller);
        cluster.remove("services/default.a.json");
        cluster.add_service("c", balanced());
        cluster.add_service("d", balanced());
        let mut controller = cluster.controller("10.0.0.0/29");
        until("c and d have theirs", || {
            cluster.addresses("c") == ["10.0.0.1"] && cluster.addresses("d") == ["10.0.0.3"]
        });
        assert_eq!(cluster.addresses("b"), ["10.0.0.2"]);

        cluster.put("down", "");
        cluster.change_service("b", |s| s["spec"]["type"] = json!("ClusterIP"));
        let asked = cluster.calls().len();
        until("it asks in vain again", || cluster.calls().len() > asked);
        cluster.remove("down");
        until("b's address is taken back", || cluster.addresses("b").is_empty());

        controller.signal(Signal::SIGTERM);
        assert_eq!(controller.0.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_bad_range_is_refused() {
        for range in ["10.0.0.1/29", "10.0.0.0/33", "here"] {
            let output = Cluster::new().set_right(&[range]);
            assert_eq!(output.status.code(), Some(2), "{range}");
            assert!(stderr(&output).contains("--iprange"), "{}", stderr(&output));
        }
    }
}

/// The schemas come with a package of PyPI, which scripts/setup puts into target/venv.
#[test]
fn manifests_fit_kubernetes_schemas() {
    let python = format!("{ROOT}/target/venv/bin/python3");
    let python = if Path::new(&python).exists() { python } else { "python3".to_owned() };
    let has_package = Command::new(&python).args(["-c", "import kubernetes_validate"]).output();
    if !has_package.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: {python} has no kubernetes-validate; scripts/setup installs it into target/venv");
        return;
    }
    let output = Command::new(python).arg(format!("{ROOT}/tests/cluster/manifests")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
