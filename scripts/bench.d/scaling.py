"""Throughput and CPU time by number of connections, round-trip time, MTU and size of write."""

import os
import subprocess

from lab import ADDRESSES, MIB, Failure
from paths import Paths
from rows import Figure, Row
from tools import client
from transfers import bind, machine_time, rates

CONNECTIONS = (1, 10, 100)
ROUND_TRIPS = (0, 1, 20, 100)
MTUS = (1280, 1500, 9000, 65520)
WRITES = (64, 512, 4 << 10, 32 << 10, 256 << 10)


class Scaling:
    def __init__(self, programs, transfers):
        self.programs, self.transfers = programs, transfers

    def processes(self, lab, tool, count):
        """`count` processes send at once. Their pipes begin to flow once all are connected."""
        each = self.transfers.payload.size // 2 // count
        port, address = lab.next_port(), ADDRESSES[4]["there"]
        sink = lab.kernel_end("there", "stream", "--listen", f"{address}:{port}", "--connections", count)
        sink.wait_for("ready")
        gate, release = os.pipe()
        os.set_inheritable(release, False)
        senders = []
        for _ in range(count):
            feed = lab.kernel_end("here", "feed", "--gate", "--bytes", each, stdin=gate, stdout=subprocess.PIPE)
            senders.append(lab.start("here", *client(self.programs, tool, 4, port, send=True), stdin=feed.stdout))
            feed.stdout.close()
        os.close(gate)
        sink.wait_for("connected", 60)
        busy = machine_time()
        os.close(release)
        result = sink.result()
        busy = machine_time() - busy
        cpu = sum(sender.wait(60).cpu for sender in senders)
        return self.values(result["received"], each * count, result["seconds"], cpu, busy, senders)

    def clients(self, lab, tool, count):
        """`count` clients send at once to one server."""
        each = self.transfers.payload.size // 2 // count
        port, address = lab.next_port(), ADDRESSES[4]["here"]
        if tool == "netkat":
            command = [self.programs.netkat, "-l", "-k", "--max-conns", count, "--no-shutdown", address, port]
            server = lab.start("here", *command)
        else:
            server = lab.start("here", "ncat", "-l", "-k", "--max-conns", count, "--recv-only", address, port)
            lab.await_listener("here", port)
        busy = machine_time()
        result = lab.kernel_end("there", "stream", "--connect", f"{address}:{port}", "--connections", count,
                                "--send", each).result()
        busy = machine_time() - busy
        server.end()
        return self.values(result["sent"], each * count, result["seconds"], server.cpu, busy, [server])

    @staticmethod
    def values(moved, wanted, seconds, cpu, machine, tools):
        if moved != wanted:
            raise Failure(f"only {moved} of {wanted} bytes arrived: {tools[0]}")
        return rates(wanted, seconds, cpu, machine)

    def write(self, lab, tool, chunk):
        """Writes the tool's input in pieces of `chunk` bytes."""
        size = min(self.transfers.payload.size, 65536 * chunk, 512 * MIB)
        port, address = lab.next_port(), ADDRESSES[4]["there"]
        sink = lab.kernel_end("there", "stream", "--listen", f"{address}:{port}")
        sink.wait_for("ready")
        feed = lab.kernel_end("here", "feed", "--bytes", size, "--chunk", chunk, stdout=subprocess.PIPE)
        sender = lab.start("here", *client(self.programs, tool, 4, port, send=True), stdin=feed.stdout)
        feed.stdout.close()
        result = sink.result()
        return self.values(result["received"], size, result["seconds"], sender.wait(60).cpu, 0, [sender])

    def rows(self):
        for count in CONNECTIONS:
            name = f"{count} processes that send" if count > 1 else "1 process that sends"
            yield self.row(name, {tool: bind(self.processes, tool, count=count) for tool in ("netkat", "nc")},
                           series=("connections, sending", count))
        for count in CONNECTIONS:
            name = f"{count} clients of one server" if count > 1 else "1 client of a server"
            yield self.row(name, {tool: bind(self.clients, tool, count=count) for tool in ("netkat", "ncat")},
                           series=("connections, receiving", count))
        paths = Paths(self.programs, self.transfers, 4, True)
        for milliseconds in ROUND_TRIPS:
            size = paths.size({0: 1024, 1: 1024, 20: 384, 100: 128}[milliseconds])
            for verb, series, measurement in (("send", "sending", paths.send), ("receive", "receiving", paths.receive)):
                yield self.row(f"{verb}, round trip {milliseconds} ms", paths.contenders(measurement, "bbr", size),
                               lab={"path": f"delay={milliseconds * 500}us" if milliseconds else ""},
                               series=(f"round trip in ms, {series}", milliseconds))
        for mtu in MTUS:
            size = min(self.transfers.payload.size, 1024 * MIB)
            for name, measurement in (("send", self.transfers.send), ("receive", self.transfers.receive)):
                yield self.row(f"{name}, MTU {mtu}",
                               {tool: bind(measurement, tool, size=size) for tool in ("netkat", "nc")},
                               lab={"mtu": mtu})
        for chunk in WRITES:
            yield self.row(f"writes of {chunk} B",
                           {tool: bind(self.write, tool, chunk=chunk) for tool in ("netkat", "nc")},
                           series=("bytes of one write", chunk))

    @staticmethod
    def row(name, contenders, **more):
        return Row(contenders, [Figure(name, "rate", "MiB/s"), Figure(f"  CPU: {name}", "cpu", "s/GiB", False)], **more)
