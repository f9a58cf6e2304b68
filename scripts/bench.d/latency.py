"""Latencies: the round trip of a message through the tool's pipes, a start, a short connection."""

import os
import time

from lab import ADDRESSES
from rows import Figure, Row
from tools import client


class Latency:
    def __init__(self, programs):
        self.programs = programs

    def ping(self, lab, tool, size, rounds):
        port = lab.next_port()
        echo = lab.kernel_end("there", "echo", "--listen", f"{ADDRESSES[4]['there']}:{port}")
        echo.wait_for("ready")
        there, back = os.pipe(), os.pipe()
        lab.start("here", *client(self.programs, tool, 4, port, send=True), stdin=there[0], stdout=back[1])
        pinger = lab.kernel_end("here", "ping", "--size", size, "--rounds", rounds, stdin=back[0], stdout=there[1])
        for fd in (*there, *back):
            os.close(fd)
        return pinger.result(60)

    def rows(self):
        def contenders(size, rounds):
            return {tool: lambda lab, _, tool=tool: self.ping(lab, tool, size, rounds) for tool in ("netkat", "nc")}

        yield Row(contenders(1, 10_000), [
            Figure("round trip of 1 byte, median", "median", "us", False, wanted={"nc": 1.0}),
            Figure("round trip of 1 byte, p99", "p99", "us", False, wanted={"nc": 1.2}),
        ])
        yield Row(contenders(65536, 2_000), [
            Figure("round trip of 64 KiB, median", "median", "us", False, wanted={"nc": 1.0}),
            Figure("round trip of 64 KiB, p99", "p99", "us", False),
        ])


class Startup:
    """The time from the start of a program to its connection. `ip netns exec` starts every contender."""

    def __init__(self, programs):
        self.programs = programs

    def connect(self, lab, tool):
        port = lab.next_port()
        sink = lab.kernel_end("there", "stream", "--listen", f"{ADDRESSES[4]['there']}:{port}")
        sink.wait_for("ready")
        start = time.monotonic()
        lab.start("here", *client(self.programs, tool, 4, port, send=True))
        sink.wait_for("connected")
        return {"time": 1e3 * (time.monotonic() - start)}

    def rows(self):
        yield Row({tool: lambda lab, _, tool=tool: self.connect(lab, tool) for tool in ("netkat", "nc")},
                  [Figure("start to connection", "time", "ms", False)])


class Clients:
    """Short connections, one after the other, to a server."""

    def __init__(self, programs):
        self.programs = programs

    def short(self, lab, tool, count):
        port = lab.next_port()
        address = ADDRESSES[4]["here"]
        if tool == "netkat":
            # Without -v, because ncat is silent, too. The first client waits for the listener.
            lab.start("here", self.programs.netkat, "-l", "-k", "--no-shutdown", address, port)
        else:
            lab.start("here", "ncat", "-l", "-k", "--recv-only", address, port)
            lab.await_listener("here", port)
        result = lab.kernel_end("there", "connect", "--to", f"{address}:{port}", "--count", count).result(60)
        return {"rate": result["connections"] / result["seconds"]}

    def rows(self):
        yield Row({tool: lambda lab, _, tool=tool: self.short(lab, tool, 1000) for tool in ("netkat", "ncat")},
                  [Figure("short connections to -l -k", "rate", "1/s", wanted={"ncat": 1.0})])
