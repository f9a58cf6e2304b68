//! The tools for a real cluster, against a kubectl that stands in for one (tests/kubernetes/kubectl).
mod cluster_lab;
mod fake_loadbalancer;
#[path = "../lab/support/json_schema.rs"]
mod json_schema;
mod matrix;
mod plugin;
#[path = "../support/skipped.rs"]
mod skipped;

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
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
        for part in ["bin", "services", "endpointslices", "nodes", "pods", "created"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        std::os::unix::fs::symlink(format!("{ROOT}/tests/kubernetes/kubectl"), folder.join("bin/kubectl"))
            .unwrap();
        let cluster = Cluster { folder };
        cluster.write("nodes/kind-worker.json", &node("kind-worker", "172.18.0.3"));
        cluster
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(format!("{ROOT}/packaging/kubernetes/{name}"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("KUBECTL_STUB", &self.folder);
        command
    }

    /// Writes by rename, so that no reader sees half of it.
    fn write(&self, file: &str, value: &Value) {
        let scratch = self.folder.join("scratch");
        fs::write(&scratch, value.to_string()).unwrap();
        fs::rename(scratch, self.folder.join(file)).unwrap();
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    /// Puts a shell script in a program's place.
    fn program(&self, name: &str, script: &str) {
        let path = self.folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the plugin to its end.
    fn plugin(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .script("kubectl-netkat")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A plugin that ends before it reads leaves a broken pipe, which is no matter here.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Returns the manifests that were created.
    fn manifests(&self) -> Vec<Value> {
        let text = |name: &String| fs::read_to_string(self.folder.join("created").join(name)).unwrap();
        self.files("created").iter().map(|name| serde_json::from_str(&text(name)).unwrap()).collect()
    }

    /// Nothing of the plugin's is left in the cluster.
    fn is_clean(&self) -> bool {
        let left = |part| self.folder.join(part).exists() && !self.files(part).is_empty();
        !left("pods") && !left("jobs")
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
        // Pods that a failed test has left behind.
        for pod in self.files("pods") {
            let text = fs::read_to_string(self.folder.join("pods").join(pod)).unwrap_or_default();
            let pod: Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(pid) = pod["pid"].as_i64() {
                let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGTERM);
            }
        }
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
    json!({"kind": "Node", "metadata": {"name": name}, "spec": {}, "status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}})
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

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_expected_of_each_path() {
    let output = Command::new(format!("{ROOT}/tests/kubernetes/expectations")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The schemas come with a package of PyPI, which scripts/setup puts into target/venv.
#[test]
fn manifests_fit_kubernetes_schemas() {
    let python = format!("{ROOT}/target/venv/bin/python3");
    let python = if Path::new(&python).exists() { python } else { "python3".to_owned() };
    let has_package = Command::new(&python).args(["-c", "import kubernetes_validate"]).output();
    if !has_package.is_ok_and(|o| o.status.success()) {
        skipped::skipped("no kubernetes-validate: run scripts/setup");
        return;
    }
    let output = Command::new(python).arg(format!("{ROOT}/tests/kubernetes/manifests")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
