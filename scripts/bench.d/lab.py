"""The network that is measured on, and processes in it.

Two network namespaces, `here` for the tool and `there` for the kernel's end, joined by a veth pair, or by the lab's
link emulator in a third. Everything goes with the Lab, however it ends; what a killed run left behind goes with the
next one.
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
    """A measurement that did not come about, and why."""


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def remove_leftovers():
    listed = run("ip", "netns", "list", capture_output=True, text=True).stdout
    for name, pid in re.findall(rf"^({PREFIX}(\d+)-\w+)", listed, re.MULTILINE):
        if not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["ip", "netns", "del", name], check=False)


class Process:
    """A process whose standard error is kept: tools' complaints, a kernel end's progress and result."""

    def __init__(self, command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        self.command = command
        self.child = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        self.stdout = self.child.stdout
        self.said = b""
        self.cpu = 0.0
        self._exit = os.pidfd_open(self.child.pid)

    def _listen(self, seconds):
        """Takes more of standard error: false at its end, or when nothing came."""
        fd = self.child.stderr.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            return False
        chunk = os.read(fd, 1 << 16)
        self.said += chunk
        return bool(chunk)

    def wait_for(self, text, seconds=20):
        """Waits for a text on standard error."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.said:
            if not self._listen(max(0, deadline - time.monotonic())):
                raise Failure(f'no "{text}" from: {self}')

    def wait(self, seconds=300):
        """Waits for the end; then `cpu` is what it and its children used, in seconds."""
        if self.child.returncode is None:
            if not select.select([self._exit], [], [], seconds)[0]:
                self.end()
                raise Failure(f"still there after {seconds} s: {self}")
            _, status, usage = os.wait4(self.child.pid, 0)
            self.child.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
            while self._listen(0):
                pass
        return self

    def succeed(self, seconds=300):
        if self.wait(seconds).child.returncode != 0:
            raise Failure(f"status {self.child.returncode} of: {self}")
        return self

    def result(self, seconds=300):
        """What a kernel end reports."""
        return json.loads(self.succeed(seconds).said.splitlines()[-1])

    def end(self, how=signal.SIGKILL):
        """Ends it and its children."""
        if self.child.returncode is None:
            try:
                os.killpg(self.child.pid, how)
            except ProcessLookupError:
                pass
            self.wait(20)

    def peak_memory(self):
        """The peak of its resident memory so far in MiB, 0 when it is gone."""
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
        words = self.said.decode(errors="replace").strip()
        return f"{' '.join(self.command)}: {words or '(silent)'}"


class Lab:
    """A context: `with Lab(…) as lab`. `path` is the link emulator's description of both directions."""

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
        """A port that no measurement before has left in TIME-WAIT."""
        self.port += 1
        return self.port

    def await_listener(self, end, port, protocol="t"):
        """Waits for a kernel socket that listens."""
        probe = [*self._within(end), "ss", f"-Hl{protocol}n", f"sport = :{port}"]
        deadline = time.monotonic() + 20
        while not run(*probe, capture_output=True).stdout:
            if time.monotonic() > deadline:
                raise Failure(f"nobody listens on port {port}")
            time.sleep(0.01)

    def start_path(self, seed):
        """A fresh path with its seed, for one measurement."""
        self.emulator = self.start("between", self.programs.link_emulator, "left", "right", "--both", self.path,
                                   "--seed", seed, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.emulator.stdout.readline() != b"ready\n":
            self.emulator.wait(5)
            raise Failure(str(self.emulator))

    def end_path(self):
        """The path's counters, by direction: first from here to there."""
        self.emulator.child.stdin.close()
        text = self.emulator.stdout.read().decode()
        self.emulator.succeed(20)
        return [{key: int(value) for key, value in re.findall(r"(\w+): (\d+)", line)} for line in text.splitlines()]

    def retransmitted(self, end):
        """Segments that the kernel of this end has sent again, ever."""
        text = run(*self._within(end), "cat", "/proc/net/snmp", capture_output=True, text=True).stdout
        names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])
