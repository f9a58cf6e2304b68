"""The network of a measurement, and processes in it.

Two network namespaces, `here` for the tool and `there` for the kernel's end, are joined by a veth
pair or by the lab's link emulator in a third. Leaving the Lab removes everything; the next run
removes the namespaces of a killed one.
"""

import json
import os
import re
import select
import signal
import subprocess
import time

PREFIX = "netkat-bench-"
ADDRESSES = {4: {"here": "10.99.0.1", "there": "10.99.0.2"}, 6: {"here": "fd99::1", "there": "fd99::2"}}
OFFLOADS = ("tso", "gso", "gro", "tx")
MIB = 1 << 20


class Failure(Exception):
    """A measurement that failed, with the reason."""


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def remove_leftovers():
    listed = run("ip", "netns", "list", capture_output=True, text=True).stdout
    for name, pid in re.findall(rf"^({PREFIX}(\d+)-\w+)", listed, re.MULTILINE):
        if not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["ip", "netns", "del", name], check=False)


class Process:
    """A process with its standard error kept: a tool's messages, a kernel end's progress and result."""

    def __init__(self, command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        self.command = command
        self.child = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        self.stdout = self.child.stdout
        self.stderr = b""
        self.cpu = 0.0
        self._exit = os.pidfd_open(self.child.pid)

    def _listen(self, seconds):
        """Reads more of standard error. Returns False at its end and after a time-out."""
        fd = self.child.stderr.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            return False
        chunk = os.read(fd, 1 << 16)
        self.stderr += chunk
        return bool(chunk)

    def wait_for(self, text, seconds=20):
        """Waits for `text` on standard error."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.stderr:
            if not self._listen(max(0, deadline - time.monotonic())):
                raise Failure(f'no "{text}" from: {self}')

    def wait(self, seconds=300):
        """Waits for the exit and sets `cpu`: CPU seconds of the process and its children."""
        if self.child.returncode is None:
            if not select.select([self._exit], [], [], seconds)[0]:
                self.end()
                raise Failure(f"did not exit within {seconds} s: {self}")
            _, status, usage = os.wait4(self.child.pid, 0)
            self.child.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
            while self._listen(0):
                pass
        return self

    def succeed(self, seconds=300):
        if self.wait(seconds).child.returncode != 0:
            raise Failure(f"exited with status {self.child.returncode}: {self}")
        return self

    def result(self, seconds=300):
        """Returns the result that a kernel end reports in its last line."""
        return json.loads(self.succeed(seconds).stderr.splitlines()[-1])

    def end(self, how=signal.SIGKILL):
        """Ends the process and its children with the signal `how`."""
        if self.child.returncode is None:
            try:
                os.killpg(self.child.pid, how)
            except ProcessLookupError:
                pass
            self.wait(20)

    def peak_memory(self):
        """Returns the peak of resident memory so far in MiB, 0 after the exit."""
        try:
            with open(f"/proc/{self.child.pid}/status", encoding="ascii") as file:
                found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        except OSError:
            found = None
        return int(found[1]) / 1024 if found else 0

    def close(self):
        self.end()
        os.close(self._exit)
        self.child.stderr.close()
        if self.stdout:
            self.stdout.close()

    def __str__(self):
        words = self.stderr.decode(errors="replace").strip()
        return f"{' '.join(self.command)}: {words or '(silent)'}"


class Lab:
    """A context manager for the namespaces. `path` describes both directions to the link emulator."""

    def __init__(self, programs, offloads=True, mtu=1500, path=None):
        self.programs = programs
        self.offloads, self.mtu, self.path = offloads, mtu, path
        self.names = {end: f"{PREFIX}{os.getpid()}-{end}" for end in ("here", "there", "between")}
        self.processes = []
        self.emulator = None
        self.port = 5000

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self):
        ends = ("here", "there", "between") if self.path is not None else ("here", "there")
        for end in ends:
            run("ip", "netns", "add", self.names[end])
            self._ip(end, "link", "set", "lo", "up")
        if self.path is None:
            self._join("here", "eth0", "there", "eth0")
        else:
            self._join("here", "eth0", "between", "left")
            self._join("there", "eth0", "between", "right")
            for name in ("left", "right"):
                self._sysctl("between", f"net.ipv6.conf.{name}.disable_ipv6=1")
        for end in ("here", "there"):
            self._ip(end, "address", "add", f"{ADDRESSES[4][end]}/24", "dev", "eth0")
            self._ip(end, "address", "add", f"{ADDRESSES[6][end]}/64", "dev", "eth0", "nodad")
            if not self.offloads:
                switches = [word for feature in OFFLOADS for word in (feature, "off")]
                run(*self._within(end), "ethtool", "-K", "eth0", *switches, stdout=subprocess.DEVNULL)

    def _join(self, one, name, other, other_name):
        run("ip", "link", "add", name, "netns", self.names[one], "type", "veth",
            "peer", "name", other_name, "netns", self.names[other])
        for end, link in ((one, name), (other, other_name)):
            self._ip(end, "link", "set", link, "mtu", str(self.mtu), "up")

    def _ip(self, end, *words):
        run("ip", "-n", self.names[end], *words)

    def _sysctl(self, end, setting):
        run(*self._within(end), "sysctl", "-qw", setting)

    def _within(self, end):
        return ["ip", "netns", "exec", self.names[end]]

    def __exit__(self, *_):
        self.end_processes()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def start(self, end, *command, **streams):
        process = Process([*self._within(end), *map(str, command)], **streams)
        self.processes.append(process)
        return process

    def kernel_end(self, end, *words, **streams):
        return self.start(end, self.programs.kernel_end, *words, **streams)

    def end_processes(self):
        while self.processes:
            self.processes.pop().close()
        self.emulator = None

    def next_port(self):
        """Returns a port that no earlier measurement left in TIME-WAIT."""
        self.port += 1
        return self.port

    def await_listener(self, end, port, protocol="t"):
        """Waits until a kernel socket listens on `port`."""
        probe = [*self._within(end), "ss", f"-Hl{protocol}n", f"sport = :{port}"]
        deadline = time.monotonic() + 20
        while not run(*probe, capture_output=True).stdout:
            if time.monotonic() > deadline:
                raise Failure(f"no listener on port {port}")
            time.sleep(0.01)

    def start_path(self, seed):
        """Starts a fresh path with `seed`, for one measurement."""
        self.emulator = self.start("between", self.programs.link_emulator, "left", "right", "--both", self.path,
                                   "--seed", seed, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.emulator.stdout.readline() != b"ready\n":
            self.emulator.wait(5)
            raise Failure(str(self.emulator))

    def end_path(self):
        """Ends the path. Returns its counters by direction, from here to there first."""
        self.emulator.child.stdin.close()
        text = self.emulator.stdout.read().decode()
        self.emulator.succeed(20)
        return [{key: int(value) for key, value in re.findall(r"(\w+): (\d+)", line)} for line in text.splitlines()]

    def retransmitted(self, end):
        """Returns the segments that this end's kernel has retransmitted since its start."""
        text = run(*self._within(end), "cat", "/proc/net/snmp", capture_output=True, text=True).stdout
        names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])
