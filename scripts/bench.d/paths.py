"""Lossy and long paths, beside a kernel sender with the same congestion control.

Each measurement has a fresh path through the lab's link emulator. The number of the run seeds the
path, so both contenders meet the same losses. Without --family and --no-offloads every row runs over
IPv4 with offloads, and sending with bbr also over IPv6 without offloads.
"""

import json
import tempfile

from lab import ADDRESSES, MIB, Failure
from rows import Figure, Row
from tools import bracketed, client
from transfers import rates

#: Name of the path, its description, MiB to move with each congestion control, netkat's ratio wanted.
PATHS = [
    ("0.1 ms, no loss", "delay=50us", {"bbr": 1024, "cubic": 1024}, 0.95),
    ("0.1 ms, 0.1 % loss", "delay=50us,loss=0.1%", {"bbr": 1024, "cubic": 128}, {"bbr": 1.0, "cubic": 0.95}),
    ("0.1 ms, 1 % loss", "delay=50us,loss=1%", {"bbr": 1024, "cubic": 32}, {"bbr": 1.0, "cubic": 0.95}),
    ("0.1 ms, 5 % loss", "delay=50us,loss=5%", {"bbr": 512, "cubic": 4}, {"bbr": 1.2, "cubic": 0.95}),
    ("20 ms, no loss", "delay=10ms", {"bbr": 256, "cubic": 256}, {"bbr": 1.0, "cubic": 0.95}),
    ("20 ms, 0.1 % loss", "delay=10ms,loss=0.1%", {"bbr": 128}, 1.0),
    ("20 ms, 1 % loss", "delay=10ms,loss=1%", {"bbr": 96}, 1.0),
    ("100 ms, no loss", "delay=50ms", {"bbr": 64, "cubic": 64}, 0.95),
    ("100 ms, 0.1 % loss", "delay=50ms,loss=0.1%", {"bbr": 48, "cubic": 8}, 0.95),
    ("20 ms, 100 Mbit/s, 50 ms queue", "delay=10ms,rate=100mbit,queue=50ms", {"bbr": 48, "cubic": 48}, 0.95),
    ("reordering of 5 %", "delay=50us,reorder=5%,displacement=3-30", {"bbr": 512, "cubic": 512}, 0.95),
]
BOTTLENECK = "delay=10ms,rate=100mbit,queue=50ms"
#: Share of the size in `PATHS` that the rows over IPv6 without offloads send.
SECOND_PART = 0.25


class Paths:
    def __init__(self, programs, transfers, family=4, offloads=True):
        self.programs, self.transfers = programs, transfers
        self.family, self.offloads = family, offloads

    def send(self, lab, run, tool, congestion, size):
        lab.start_path(run + 1)
        port = lab.next_port()
        sink = self.end(lab, "there", "--listen", port)
        sink.wait_for("ready")
        before = lab.retransmitted("here")
        report = None
        if tool == "kernel":
            near = self.end(lab, "here", "--connect", port, "--send", size, "--congestion", congestion)
        else:
            report = tempfile.NamedTemporaryFile()
            command = client(self.programs, tool, self.family, port, send=True, congestion=congestion)
            with self.transfers.payload.open(size) as file:
                near = lab.start("here", command[0], f"--json={report.name}", *command[1:], stdin=file)
        result = sink.result()
        near.succeed()
        retransmitted = lab.retransmitted("here") - before
        if report:
            with report:
                retransmitted = json.load(report)["traffic"]["retransmitted_segments"]
        values = self.values(lab, result["received"], size, result["seconds"], near)
        return {**values, "retransmitted": retransmitted}

    def receive(self, lab, run, tool, congestion, size):
        lab.start_path(run + 1)
        port = lab.next_port()
        source = self.end(lab, "there", "--listen", port, "--send", size, "--congestion", congestion)
        source.wait_for("ready")
        near = lab.start("here", *client(self.programs, tool, self.family, port, send=False))
        result = source.result()
        near.succeed()
        return self.values(lab, result["sent"], size, result["seconds"], near)

    def end(self, lab, end, how, port, *words):
        return lab.kernel_end(end, "stream", how, f"{bracketed(ADDRESSES[self.family]['there'])}:{port}", *words)

    @staticmethod
    def values(lab, moved, size, seconds, near):
        if moved != size:
            raise Failure(f"only {moved} of {size} bytes arrived: {near}")
        counts = lab.end_path()
        return {**rates(size, seconds, near.cpu, 0), "dropped": sum(count["queue_full"] for count in counts)}

    def share(self, lab, run, congestion, seconds):
        """Measures how netkat's flow and one of the kernel's share the bottleneck."""
        lab.start_path(run + 1)
        sinks = []
        for sender in ("netkat", "kernel"):
            port = lab.next_port()
            sinks.append(self.end(lab, "there", "--listen", port, "--seconds", seconds))
            sinks[-1].wait_for("ready")
            if sender == "kernel":
                self.end(lab, "here", "--connect", port, "--send", 1 << 50, "--congestion", congestion)
            else:
                with open("/dev/zero", "rb") as zeros:
                    command = client(self.programs, sender, self.family, port, send=True, congestion=congestion)
                    lab.start("here", *command, stdin=zeros)
        ours, theirs = (sink.result()["received"] for sink in sinks)
        jain = (ours + theirs) ** 2 / (2 * (ours**2 + theirs**2))
        return {"jain": jain, "share": 100 * ours / (ours + theirs)}

    def lab(self, path):
        return {"path": path, "offloads": self.offloads}

    def size(self, mib):
        return min(mib * MIB, self.transfers.payload.size)

    def contenders(self, measurement, congestion, size):
        return {name: lambda lab, run, tool=tool: measurement(lab, run, tool, congestion, size)
                for tool, name in (("netkat", "netkat"), ("kernel", f"kernel {congestion}"))}

    def suffix(self):
        family = ", IPv6" if self.family == 6 else ""
        return f"{family}{'' if self.offloads else ', offloads off'}"

    def rows(self):
        yield from self.sending_rows()
        for name, path, sizes, _ in PATHS:
            # One congestion control is enough: the kernel's sender runs it, not netkat.
            congestion, mib = next(iter(sizes.items()))
            yield self.receiving(name, path, congestion, mib)
        for congestion in ("bbr", "cubic"):
            yield self.sharing(congestion, seconds=30 if self.transfers.payload.size >= 1 << 30 else 5)

    def sending_rows(self, only=None, part=1):
        for name, path, sizes, wanted in PATHS:
            for congestion, mib in sizes.items():
                if congestion in (only or sizes):
                    ratio = wanted[congestion] if isinstance(wanted, dict) else wanted
                    yield self.sending(name, path, congestion, max(int(mib * part), 4), ratio)

    def sending(self, name, path, congestion, mib, ratio):
        title, kernel = f"{name}, {congestion}{self.suffix()}", f"kernel {congestion}"
        # Retransmissions on a lossy path follow the loss. On a reordering path they are spurious.
        retransmitted = Figure(f"  retransmitted: {title}", "retransmitted", "", False,
                               wanted={kernel: 1.2} if "reorder" in path else {})
        dropped = Figure(f"  dropped: {title}", "dropped", "", False, wanted={kernel: 1.2})
        return Row(
            self.contenders(self.send, congestion, self.size(mib)),
            [Figure(f"send: {title}", "rate", "MiB/s", wanted={kernel: ratio}), retransmitted,
             *([dropped] if "rate" in path else [])],
            self.lab(path),
        )

    def receiving(self, name, path, congestion, mib):
        title = f"receive: {name}, {congestion}{self.suffix()}"
        return Row(self.contenders(self.receive, congestion, self.size(mib)),
                   [Figure(title, "rate", "MiB/s", wanted={f"kernel {congestion}": 0.9})], self.lab(path))

    def sharing(self, congestion, seconds):
        title = f"{congestion} with the kernel's {congestion}, {seconds} s{self.suffix()}"
        return Row({"netkat": lambda lab, run: self.share(lab, run, congestion, seconds)},
                   [Figure(f"Jain's index: {title}", "jain", "", limit=0.9),
                    Figure(f"  netkat's share: {title}", "share", "%")],
                   self.lab(BOTTLENECK))

    def long_rows(self):
        """Returns the rows that belong to the plain table."""
        yield self.receiving("20 ms, no loss", "delay=10ms", "bbr", 256)


def path_rows(programs, transfers, family, offloads):
    """Returns all rows. `family` and `offloads` choose IP version and frame size; None is the default mix."""
    if family is None and offloads is None:
        yield from Paths(programs, transfers).rows()
        yield from Paths(programs, transfers, 6, False).sending_rows(only=("bbr",), part=SECOND_PART)
    else:
        yield from Paths(programs, transfers, family or 4, offloads is not False).rows()
