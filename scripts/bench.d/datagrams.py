"""UDP datagrams per second.

Sending, each write into the tool's input is one datagram: a pipe in packet mode (O_DIRECT in
pipe(2)) keeps the writes apart. The row counts the datagrams that the kernel's end receives. nc at
times joins two reads into one datagram, which the row counts as two.

Receiving, the kernel's end sends faster than the tool can receive. The row counts the datagrams in
the tool's output.
"""

import fcntl
import os
import signal
import subprocess
import time

from lab import ADDRESSES, Failure
from rows import Figure, Row
from tools import start_server

PIPE = 1 << 20


class Datagrams:
    def __init__(self, programs, count, seconds):
        self.programs, self.count, self.seconds = programs, count, seconds

    def send(self, lab, tool, size):
        port, address = lab.next_port(), ADDRESSES[4]["there"]
        sink = lab.kernel_end("there", "collect", "--listen", f"{address}:{port}")
        sink.wait_for("ready")
        reader, writer = os.pipe2(os.O_DIRECT)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
        lab.start("here", self.programs.netkat if tool == "netkat" else "nc.openbsd", "-u", address, port, stdin=reader)
        lab.kernel_end("here", "feed", "--bytes", self.count * size, "--chunk", size, stdout=writer)
        os.close(reader)
        os.close(writer)
        result = sink.result(120)
        if tool == "netkat" and result["bytes"] != result["datagrams"] * size:
            raise Failure(f"not every datagram has {size} bytes: {result}")
        arrived = result["bytes"] / size
        return {"rate": arrived / result["seconds"], "lost": 100 * (1 - arrived / self.count)}

    def receive(self, lab, tool, size):
        port, address = lab.next_port(), ADDRESSES[4]["here"]
        command = [self.programs.netkat, "-v", "-u", "-l"] if tool == "netkat" else ["nc.openbsd", "-d", "-u", "-l"]
        server = start_server(lab, tool, [*command, address, port], port, protocol="u", stdout=subprocess.PIPE)
        drain = lab.kernel_end("here", "drain", stdin=server.stdout)
        blast = lab.kernel_end("there", "blast", "--to", f"{address}:{port}", "--size", size, "--seconds", self.seconds)
        offered = blast.result(60)["datagrams"]
        # Data in the tool's buffers counts, too: the drain stamps each read.
        time.sleep(0.5)
        server.end(signal.SIGTERM)
        server.stdout.close()
        server.stdout = None
        result = drain.result(60)
        received = result["bytes"] / size
        if not received:
            raise Failure(f"none of {offered} datagrams arrived at: {server}")
        return {"rate": received / result["seconds"], "lost": 100 * (1 - received / offered)}

    def rows(self):
        for size in (64, 1400):
            for name, measurement in (("sent", self.send), ("received", self.receive)):
                contenders = {tool: lambda lab, _, tool=tool, m=measurement, size=size: m(lab, tool, size)
                              for tool in ("netkat", "nc")}
                yield Row(contenders, [
                    Figure(f"UDP {name}, {size} B", "rate", "1/s", wanted={"nc": 2.0}),
                    Figure(f"  lost: UDP {name}, {size} B", "lost", "%", False),
                ])
