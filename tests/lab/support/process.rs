//! Programs that the lab runs, each with a deadline. The harness takes their output and shows stderr on failure.
//!
//! Dropping a [`Process`] kills it, by its id. Threads read the output, so no pipe ever fills.
//! Output with an expected payload is compared at once and not kept.
use super::{json_schema, payload::Payload, requirements};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Maximum time of anything in the lab, unless a test says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Source of a program's stdin.
#[derive(Clone, Debug)]
pub enum Input {
    /// /dev/null
    Null,
    /// File descriptor 0 is closed.
    Closed,
    /// A pipe that delivers these bytes and ends.
    Bytes(Vec<u8>),
    /// A file, as `<FILE` does.
    File(PathBuf),
    /// A pipe that stays open until [`Process::close_stdin`].
    Open,
}

/// A program before its start.
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    namespace: Option<PathBuf>,
    input: Input,
    expected: Option<Payload>,
    stdout: Option<File>,
    stderr: Option<File>,
    deadline: Duration,
}

impl Command {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            namespace: None,
            input: Input::Null,
            expected: None,
            stdout: None,
            stderr: None,
            deadline: DEADLINE,
        }
    }

    pub fn inside(namespace: &Path, program: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::new(program) }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.input(Input::Bytes(text.as_bytes().to_vec()))
    }

    /// Compares stdout with the payload at once; [`Output::check`] has the outcome.
    pub fn expect(mut self, payload: &Payload) -> Self {
        self.expected = Some(payload.clone());
        self
    }

    /// Redirects stdout to a file, which the harness does not read.
    pub fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Redirects stderr to a file, which the harness does not read.
    pub fn stderr(mut self, file: File) -> Self {
        self.stderr = Some(file);
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs to the end (or the deadline, which kills and counts as a failure).
    pub fn run(self) -> Output {
        let deadline = self.deadline;
        self.spawn().wait(deadline)
    }

    /// Runs to the end and panics, with all it wrote, unless it succeeded.
    pub fn succeed(self) -> Output {
        let output = self.run();
        assert!(output.success(), "{output}");
        output
    }

    pub fn spawn(self) -> Process {
        let line = self.line();
        let program = self.resolved();
        let mut command = match &self.namespace {
            None => std::process::Command::new(&program),
            Some(file) => {
                // nsenter replaces itself by the program, so the child's id is the program's.
                let nsenter = requirements::program("nsenter").unwrap_or("nsenter".into());
                let mut command = std::process::Command::new(nsenter);
                let mut net = OsString::from("--net=");
                net.push(file);
                command.arg(net).arg("--").arg(&program);
                command
            }
        };
        if matches!(self.input, Input::Closed) {
            // Only a shell closes descriptor 0 without unsafe code here.
            let inner = std::mem::replace(&mut command, std::process::Command::new("/bin/sh"));
            command.args(["-c", "exec \"$@\" <&-", "sh"]).arg(inner.get_program()).args(inner.get_args());
        }
        command.args(&self.arguments);
        // A system call that netkat's filter lacks must fail the test.
        command.env("NETKAT_SECCOMP", "kill");
        command.stdin(match &self.input {
            Input::Null | Input::Closed => Stdio::null(),
            Input::Bytes(_) | Input::Open => Stdio::piped(),
            Input::File(path) => {
                File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
            }
        });
        command.stdout(self.stdout.map_or_else(Stdio::piped, Stdio::from));
        command.stderr(self.stderr.map_or_else(Stdio::piped, Stdio::from));
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = self.input {
            let mut pipe = stdin.take().expect("a pipe");
            // A program that ends without reading all of it is no error here.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        let stdout = child.stdout.take().map(|pipe| collect(pipe, self.expected));
        let stderr = child.stderr.take().map(|pipe| collect(pipe, None));
        let json = Objects::of(&self.arguments);
        Process { line, child, stdin, stdout, stderr, started: Instant::now(), json }
    }

    fn resolved(&self) -> OsString {
        let name = self.program.to_string_lossy();
        if name.contains('/') {
            return self.program.clone();
        }
        requirements::program(&name).map_or_else(|| self.program.clone(), PathBuf::into_os_string)
    }

    fn line(&self) -> String {
        let mut line = String::new();
        if let Some(name) = self.namespace.as_deref().and_then(Path::file_name) {
            let _ = write!(line, "[{}] ", name.to_string_lossy());
        }
        for word in std::iter::once(&self.program).chain(&self.arguments) {
            let _ = write!(line, "{} ", word.to_string_lossy());
        }
        line
    }
}

/// Bytes that a pipe has delivered so far.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    length: u64,
    /// Offset of the first byte that differs from the payload.
    differs: Option<u64>,
}

struct Collector {
    shared: Arc<Mutex<Collected>>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn now(&self) -> MutexGuard<'_, Collected> {
        self.shared.lock().expect("the collector's thread does not panic")
    }
}

/// Maximum of kept output, in bytes, where no payload is expected.
const KEPT: usize = 64 << 20;

fn collect(mut pipe: impl Read + Send + 'static + std::os::fd::AsFd, expected: Option<Payload>) -> Collector {
    // Larger pipes only make the transfer faster.
    let _ = nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    let shared = Arc::new(Mutex::new(Collected::default()));
    let writer = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        let mut reference = expected.as_ref().map(Payload::open);
        let mut buffer = vec![0; 256 << 10];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            let mut collected = writer.lock().expect("no holder panics");
            match &mut reference {
                Some(reference) if collected.differs.is_none() => {
                    let same = reference.agrees(&buffer[..n]);
                    collected.differs = (same < n).then(|| collected.length + same as u64);
                }
                Some(_) => {}
                None if collected.bytes.len() < KEPT => collected.bytes.extend_from_slice(&buffer[..n]),
                None => {}
            }
            collected.length += n as u64;
        }
    });
    Collector { shared, thread }
}

/// The places of a program's JSON objects, all of which are checked by their schemas.
struct Objects {
    /// The file of --json=FILE.
    file: Option<PathBuf>,
    /// Standard error holds objects alone: those of --json, and no process but netkat writes to it.
    stderr: bool,
}

impl Objects {
    fn of(arguments: &[OsString]) -> Objects {
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        let is = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_ref()));
        let shared = is(&["--run", "--shell", "--exec", "--sh-exec", "--sniff", "--read", "-d", "--payload"]);
        Objects {
            file: words.iter().find_map(|word| word.strip_prefix("--json=")).map(PathBuf::from),
            stderr: is(&["--json"]) && !shared,
        }
    }

    fn check(&self, output: &Output) {
        json_schema::check_lines(&output.text());
        json_schema::check_lines(&output.stderr);
        // A FIFO would wait for a writer.
        if let Some(file) = self.file.as_ref().filter(|file| file.is_file()) {
            json_schema::check_lines(&fs::read_to_string(file).unwrap_or_default());
        }
        let others = output.stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>();
        assert!(!self.stderr || others.is_empty(), "lines beside the objects: {others:?}\n{output}");
    }
}

/// A running program. Dropping it kills it.
pub struct Process {
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Collector>,
    stderr: Option<Collector>,
    started: Instant,
    json: Objects,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to a stdin that is [`Input::Open`]; a program that does not take the bytes in time is
    /// killed.
    pub fn write(&mut self, bytes: &[u8]) {
        let (line, child) = (&self.line, &mut self.child);
        let stdin = self.stdin.as_mut().expect("an open stdin");
        thread::scope(|scope| {
            let writer = scope.spawn(|| stdin.write_all(bytes));
            let deadline = Instant::now() + DEADLINE;
            while !writer.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            let late = !writer.is_finished();
            if late {
                // The program's end of the pipe goes with it, and the writer wakes up.
                let _ = child.kill();
            }
            let written = writer.join().expect("the writer does not panic");
            assert!(!late, "{line}: did not take its input in time");
            written.unwrap_or_else(|e| panic!("{line}: writing to its stdin: {e}"));
        });
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap_or_else(|e| panic!("{}: {signal}: {e}", self.line));
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waiting for a child").is_none()
    }

    /// Returns stdout so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.as_ref().map(|c| c.now().bytes.clone()).unwrap_or_default()
    }

    /// Returns how many bytes stdout has delivered so far.
    pub fn received(&self) -> u64 {
        self.stdout.as_ref().map_or(0, |c| c.now().length)
    }

    /// Returns stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.as_ref().map(|c| String::from_utf8_lossy(&c.now().bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until stderr holds the text.
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_until(&format!("\"{text}\" on stderr"), |p| p.stderr().contains(text));
    }

    /// Waits until stdout holds the text.
    pub fn wait_for_stdout(&mut self, text: &str) {
        self.wait_until(&format!("\"{text}\" on stdout"), |p| {
            String::from_utf8_lossy(&p.stdout()).contains(text)
        });
    }

    /// Waits until the condition holds; panics with stderr when the program ends or the deadline
    /// passes first.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let ended = !self.is_running();
            // The last output may have come after the look above.
            if ended && condition(self) {
                return;
            }
            let stderr = self.stderr();
            assert!(!ended, "{}: ended before {what}:\n{stderr}", self.line);
            assert!(Instant::now() < deadline, "{}: no {what}:\n{stderr}", self.line);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a TCP socket of the program's namespace listens on the port, or a UDP socket is bound to it.
    pub fn wait_listening(&mut self, port: u16) {
        self.wait_until(&format!("listener on port {port}"), |p| listens(p.child.id(), port));
    }

    /// Waits for the end; the deadline kills. Output that a surviving grandchild holds open is not waited for.
    pub fn wait(mut self, deadline: Duration) -> Output {
        let end = Instant::now() + deadline;
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child") {
                break status;
            }
            if Instant::now() >= end {
                timed_out = true;
                let _ = self.child.kill();
                break self.child.wait().expect("waiting for a killed child");
            }
            thread::sleep(Duration::from_millis(1));
        };
        let elapsed = self.started.elapsed();
        let drained = Instant::now() + Duration::from_secs(5);
        for collector in self.stdout.iter().chain(&self.stderr) {
            while !collector.thread.is_finished() && Instant::now() < drained {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let taken = |c: Option<Collector>| c.map(|c| std::mem::take(&mut *c.now())).unwrap_or_default();
        let stdout = taken(self.stdout.take());
        let stderr = taken(self.stderr.take());
        let output = Output {
            line: std::mem::take(&mut self.line),
            status,
            timed_out,
            elapsed,
            stdout: stdout.bytes,
            length: stdout.length,
            differs: stdout.differs,
            stderr: String::from_utf8_lossy(&stderr.bytes).into_owned(),
        };
        self.json.check(&output);
        output
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(self) -> Output {
        self.signal(nix::sys::signal::SIGTERM);
        self.wait(DEADLINE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() && !self.line.is_empty() {
            eprintln!("--- {}\n{}", self.line, self.stderr());
        }
    }
}

/// Returns whether the socket table of the process's namespace has a listener on the port: /proc/net/tcp in state 0A
/// (TCP_LISTEN), /proc/net/udp in state 07 (bound, not connected).
fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!("{port:04X}");
    [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")].iter().any(|(table, state)| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().and_then(|l| l.rsplit(':').next());
            local == Some(&wanted) && fields.nth(1) == Some(state)
        })
    })
}

/// Returns whether a process sleeps in poll(2).
pub fn sleeps_in_poll(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|call| call.contains("poll"))
}

/// Output and status of a program that has ended.
pub struct Output {
    line: String,
    status: ExitStatus,
    pub timed_out: bool,
    pub elapsed: Duration,
    pub stdout: Vec<u8>,
    /// Number of bytes on stdout, kept or not.
    pub length: u64,
    differs: Option<u64>,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success() && !self.timed_out
    }

    /// Returns the exit status; `None` if a signal or the deadline ended the program.
    pub fn code(&self) -> Option<i32> {
        if self.timed_out { None } else { self.status.code() }
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics unless stdout was the payload, complete and exact.
    pub fn check(&self, payload: &Payload) {
        assert_eq!(self.differs, None, "first wrong byte's offset, of {} that came: {self}", self.length);
        assert_eq!(self.length, payload.length(), "bytes that came, bytes sent: {self}");
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, status, elapsed, stderr, .. } = self;
        let late = if self.timed_out { " (killed at its deadline)" } else { "" };
        writeln!(f, "{line}: {status}{late} after {elapsed:?}")?;
        if self.stdout.len() < 4096 {
            writeln!(f, "--- stdout\n{}", self.text())?;
        }
        write!(f, "--- stderr\n{stderr}")
    }
}
