"""Programs in `netkat --run` beside the same programs outside: throughput, round trip, start."""

import json
import os
import shutil
import subprocess
import time

from lab import ADDRESSES, Failure
from rows import Figure, Row

GIB = 1 << 30
#: Serves one file to every request, by sendfile(2).
WEB_SERVER = """
import os, socket, sys
listener = socket.create_server((sys.argv[1], 80))
while True:
    client, _ = listener.accept()
    client.recv(65536)
    with open(sys.argv[2], "rb") as file:
        length = min(int(sys.argv[3]), os.fstat(file.fileno()).st_size)
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % length)
        client.sendfile(file, 0, length)
    client.close()
"""


class Commands:
    """The contender "netkat" is the program inside, "kernel" the same program outside."""

    def __init__(self, programs, payload):
        self.programs, self.payload = programs, payload

    def within(self, tool, *command):
        return [self.programs.netkat, "--run", "--", *command] if tool == "netkat" else list(command)

    def iperf(self, lab, tool, *options):
        lab.start("there", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
        lab.await_listener("there", 5201)
        command = self.within(tool, "iperf3", "-c", ADDRESSES[4]["there"], "-t", "3", "-J", *options)
        client = lab.start("here", *command, stdout=subprocess.PIPE)
        report = json.load(client.stdout)
        client.succeed(60)
        return {"rate": report["end"]["sum_received"]["bits_per_second"] / 8 / 2**20}

    def curl(self, lab, tool):
        size = min(self.payload.size, GIB)
        lab.start("there", "python3", "-c", WEB_SERVER, ADDRESSES[4]["there"], self.payload.path, size)
        lab.await_listener("there", 80)
        url = f"http://{ADDRESSES[4]['there']}/"
        words = ["curl", "-s", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}", url]
        client = lab.start("here", *self.within(tool, *words), stdout=subprocess.PIPE)
        length, speed = client.stdout.read().split()
        client.succeed(60)
        if int(length) != size:
            raise Failure(f"curl got {length} bytes of {size}")
        return {"rate": float(speed) / 2**20}

    def ping(self, lab, tool):
        port = lab.next_port()
        echo = lab.kernel_end("there", "echo", "--listen", f"{ADDRESSES[4]['there']}:{port}")
        echo.wait_for("ready")
        there, back = os.pipe(), os.pipe()
        command = self.within(tool, "nc.openbsd", "-N", ADDRESSES[4]["there"], port)
        lab.start("here", *command, stdin=there[0], stdout=back[1])
        pinger = lab.kernel_end("here", "ping", "--size", 1, "--rounds", 10_000, stdin=back[0], stdout=there[1])
        for fd in (*there, *back):
            os.close(fd)
        return pinger.result(60)

    def start(self, lab, tool):
        port = lab.next_port()
        sink = lab.kernel_end("there", "stream", "--listen", f"{ADDRESSES[4]['there']}:{port}")
        sink.wait_for("ready")
        start = time.monotonic()
        lab.start("here", *self.within(tool, "nc.openbsd", "-N", ADDRESSES[4]["there"], port))
        sink.wait_for("connected")
        return {"time": 1e3 * (time.monotonic() - start)}

    def rows(self):
        def contenders(measure, *options):
            return {tool: lambda lab, _, tool=tool: measure(lab, tool, *options) for tool in ("netkat", "kernel")}

        if shutil.which("iperf3"):
            for name, options in (("iperf3 in --run, sending", ()), ("iperf3 in --run, receiving", ("-R",))):
                yield Row(contenders(self.iperf, *options),
                          [Figure(name, "rate", "MiB/s", wanted={"kernel": 0.8})])
        if shutil.which("curl"):
            yield Row(contenders(self.curl), [Figure("curl in --run", "rate", "MiB/s", wanted={"kernel": 0.8})])
        yield Row(contenders(self.ping), [
            Figure("round trip of 1 byte in --run, median", "median", "us", False, wanted={"kernel": 1.5}),
        ])
        yield Row(contenders(self.start), [Figure("start to connection of --run", "time", "ms", False, limit=60)])
