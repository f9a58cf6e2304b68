"""Throughput and CPU time of transfers in one direction, the other, and both.

The kernel's end holds the clock. Where it receives, the clock runs from the connection to the last
byte. Where it sends, the clock runs to the tool's FIN, which follows the tool's last write to its
output. Between two tools this program holds the clock: from the first byte read to the receiver's
exit.
"""

import hashlib
import os
import subprocess
import threading
import time

from lab import ADDRESSES, MIB, Failure
from rows import Figure, Row
from tools import bracketed, client, server, start_server

GIB = 1 << 30
VERIFIED = 64 * MIB


class Payload:
    """A file of random bytes. Tools send its last bytes, the kernel's end its first."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        with open(path, "wb") as file:
            for at in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - at)))

    def open(self, size):
        """Opens the file where `size` bytes are left. The tool that reads it shares its offset."""
        file = open(self.path, "rb", buffering=0)
        file.seek(self.size - size)
        return file

    def digest(self, size, tail):
        """Returns the SHA-256 of the last `size` bytes, or of the first."""
        with open(self.path, "rb") as file:
            file.seek(self.size - size if tail else 0)
            return hashlib.sha256(file.read(size)).hexdigest()


class OutputHash(threading.Thread):
    """Reads a process's output to its end and hashes it."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.hash = process, hashlib.sha256()
        self.start()

    def run(self):
        while chunk := self.process.stdout.read1(MIB):
            self.hash.update(chunk)

    def expect(self, digest, what):
        self.join(60)
        if self.hash.hexdigest() != digest:
            raise Failure(f"{what}: the bytes that arrived differ from those sent")


def machine_time():
    """Returns the busy CPU seconds of the whole machine since its start."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Transfers:
    def __init__(self, programs, payload):
        self.programs, self.payload = programs, payload

    def send(self, lab, tool, family=4, size=None, listening=False, shape="file", copy=False, **options):
        size = size or self.payload.size
        port = lab.next_port()
        where = f"{bracketed(ADDRESSES[family]['here' if listening else 'there'])}:{port}"
        more = ["--copy"] if copy else []
        if tool == "original":
            more += ["--until", str(size)]
        sink_words = ["stream", "--connect" if listening else "--listen", where, *more]
        sink_stdout = subprocess.PIPE if copy else subprocess.DEVNULL
        sink = None
        if not listening:
            sink = lab.kernel_end("there", *sink_words, stdout=sink_stdout)
            sink.wait_for("ready")
        busy = machine_time()
        with self.payload.open(size) as file:
            stdin = file
            if shape == "pipe" or tool == "original":
                # The original exits half a second after the end of its input and drops unsent data.
                words = ["cat"] if tool != "original" else ["sh", "-c", "cat; sleep 300"]
                stdin = lab.start("here", *words, stdin=file, stdout=subprocess.PIPE).stdout
            if listening:
                command = server(self.programs, tool, family, port, send=True)
                sender = start_server(lab, tool, command, port, stdin=stdin)
                sink = lab.kernel_end("there", *sink_words, stdout=sink_stdout)
            else:
                sender = lab.start("here", *client(self.programs, tool, family, port, send=True, **options), stdin=stdin)
            if shape == "pipe":
                stdin.close()
        digest = OutputHash(sink) if copy else None
        result = sink.result()
        busy = machine_time() - busy
        if tool != "original":
            sender.wait(60)
        if result["received"] != size:
            raise Failure(f"{result['received']} of {size} bytes arrived from: {sender}")
        if digest:
            digest.expect(self.payload.digest(size, tail=True), sender)
        return rates(size, result["seconds"], sender.cpu, busy)

    def receive(self, lab, tool, family=4, size=None, listening=False, copy=False):
        size = size or self.payload.size
        port = lab.next_port()
        where = f"{bracketed(ADDRESSES[family]['here' if listening else 'there'])}:{port}"
        words = ["stream", "--connect" if listening else "--listen", where, "--send", size, "--file", self.payload.path]
        output = subprocess.PIPE if copy else subprocess.DEVNULL
        busy = machine_time()
        if listening:
            command = server(self.programs, tool, family, port, send=False)
            receiver = start_server(lab, tool, command, port, stdout=output)
            source = lab.kernel_end("there", *words)
        else:
            source = lab.kernel_end("there", *words)
            source.wait_for("ready")
            stdin = subprocess.DEVNULL
            if tool == "original":
                stdin = lab.start("here", "sleep", 300, stdout=subprocess.PIPE).stdout
            command = client(self.programs, tool, family, port, send=False)
            receiver = lab.start("here", *command, stdin=stdin, stdout=output)
        digest = OutputHash(receiver) if copy else None
        result = source.result()
        busy = machine_time() - busy
        if tool != "original":
            receiver.wait(60)
        if result["sent"] != size:
            raise Failure(f"only {result['sent']} of {size} bytes went to: {receiver}")
        if digest:
            digest.expect(self.payload.digest(size, tail=False), receiver)
        return rates(size, result["seconds"], receiver.cpu, busy)

    def both(self, lab, tool, copy=False):
        """Measures both directions at once. The rate is their sum."""
        size = self.verified if copy else self.payload.size
        port = lab.next_port()
        words = ["stream", "--listen", f"{ADDRESSES[4]['there']}:{port}", "--send", size, "--file", self.payload.path]
        output = subprocess.PIPE if copy else subprocess.DEVNULL
        far = lab.kernel_end("there", *words, *(["--copy"] if copy else []), stdout=output)
        far.wait_for("ready")
        with self.payload.open(size) as file:
            near = lab.start("here", *client(self.programs, tool, 4, port, send=True), stdin=file, stdout=output)
        digests = [OutputHash(far), OutputHash(near)] if copy else []
        result = far.result()
        near.wait(60)
        if (result["received"], result["sent"]) != (size, size):
            raise Failure(f"not all of {size} bytes went both ways: {result}: {near}")
        for digest, tail in zip(digests, (True, False)):
            digest.expect(self.payload.digest(size, tail), near)
        return rates(2 * size, result["seconds"], near.cpu, 0)

    def pair(self, lab, tool, copy=False):
        """Measures a transfer from one tool to another of its kind."""
        size = self.verified if copy else self.payload.size
        port = lab.next_port()
        command = server(self.programs, tool, 4, port, send=False, end="there")
        output = subprocess.PIPE if copy else subprocess.DEVNULL
        receiver = start_server(lab, tool, command, port, end="there", stdout=output)
        digest = OutputHash(receiver) if copy else None
        with self.payload.open(size) as file:
            start = file.tell()
            sender = lab.start("here", *client(self.programs, tool, 4, port, send=True), stdin=file)
            while file.tell() == start:
                time.sleep(0.0002)
            clock = time.monotonic()
            receiver.wait()
            seconds = time.monotonic() - clock
            if file.tell() != self.payload.size:
                raise Failure(f"the sender did not read all of its input: {sender}")
        sender.wait(60)
        if digest:
            digest.expect(self.payload.digest(size, tail=True), receiver)
        return rates(size, seconds, sender.cpu, 0)

    def memory(self, lab, tool, send):
        """Returns the peak of resident memory while one connection moves the payload."""
        peak, done = 0, threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.01):
                for process in list(lab.processes):
                    if process.command[4:5] == [str(self.programs.netkat)] or "nc.openbsd" in process.command:
                        peak = max(peak, process.peak_memory())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            (self.send if send else self.receive)(lab, tool)
        finally:
            done.set()
            watcher.join()
        return {"memory": peak}

    def rows(self):
        for listening in (False, True):
            where = ", listening" if listening else ""
            yield self.sending(f"send a file{where}", {"nc": 3.5, "socat": 1.8}, listening=listening)
            yield self.sending(f"send a file, IPv6{where}", {"nc": 3.0}, family=6, listening=listening)
            yield self.receiving(f"receive{where}", {"nc": 1.0, "kernel": 0.85}, listening=listening)
        yield self.receiving("receive, IPv6", {"nc": 1.0}, family=6)
        yield self.sending("send through a pipe", {"nc": 2.0}, shape="pipe")
        yield Row(
            {tool: bind(self.pair, tool) for tool in ("netkat", "nc")},
            [Figure("tool to tool of its kind", "rate", "MiB/s", wanted={"nc": 3.0})],
            verify=[lambda lab: self.pair(lab, "netkat", copy=True)],
        )
        yield Row(
            {tool: bind(self.both, tool) for tool in ("netkat", "nc")},
            [Figure("both directions at once, sum", "rate", "MiB/s", wanted={"nc": 1.5})],
            verify=[lambda lab: self.both(lab, "netkat", copy=True)],
        )
        small = max(self.payload.size // 4, MIB)
        without = {"offloads": False}
        yield self.sending("send a file, offloads off", {"nc": 0.9}, lab=without, size=small)
        yield self.receiving("receive, offloads off", {"nc": 0.9}, lab=without, size=small)
        if self.programs.original:
            tools = ("netkat", "original")
            yield Row({tool: bind(self.send, tool, size=small) for tool in tools},
                      [Figure("send beside the original", "rate", "MiB/s", wanted={"original": 10})])
            yield Row({tool: bind(self.receive, tool, size=small) for tool in tools},
                      [Figure("receive beside the original", "rate", "MiB/s", wanted={"original": 2})])
        for send in (True, False):
            yield Row({tool: bind(self.memory, tool, send=send) for tool in ("netkat", "nc")},
                      [Figure(f"peak memory, {'sending' if send else 'receiving'}", "memory", "MiB", False, limit=64)])

    def sending(self, name, wanted, lab=None, **how):
        figures = [Figure(name, "rate", "MiB/s", wanted=wanted), *costs(name)]
        return Row({tool: bind(self.send, tool, **how) for tool in ("netkat", *wanted)}, figures, lab or {},
                   [lambda lab: self.send(lab, "netkat", **{**how, "size": self.verified}, copy=True)])

    def receiving(self, name, wanted, lab=None, **how):
        figures = [Figure(name, "rate", "MiB/s", wanted=wanted), *costs(name)]
        return Row({tool: bind(self.receive, tool, **how) for tool in ("netkat", *wanted)}, figures, lab or {},
                   [lambda lab: self.receive(lab, "netkat", **{**how, "size": self.verified}, copy=True)])

    @property
    def verified(self):
        return min(VERIFIED, self.payload.size)


def costs(name):
    return [Figure(f"  CPU: {name}", "cpu", "s/GiB", False, wanted={"nc": 1.0}),
            Figure(f"  CPU of the machine: {name}", "machine", "s/GiB", False)]


def rates(size, seconds, cpu, machine):
    values = {"rate": size / MIB / seconds, "machine": machine / size * GIB}
    if cpu:
        values["cpu"] = cpu / size * GIB
    return values


def bind(measurement, tool, **how):
    return lambda lab, _: measurement(lab, tool, **how)
