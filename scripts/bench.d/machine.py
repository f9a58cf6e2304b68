"""The quiet-machine protocol, which all benchmarks share.

A row has a verdict only if the machine had nothing else to do. Two figures say so: `load`, the CPUs that were
busy in moments without a contender (before the row, and after it), and `steal`, the share of the CPUs' time
during the row that the hypervisor gave to others. A verdict stays away where either exceeds its limit. A row
whose runs spread by more than NOISY is marked: repeat it hours apart before you believe it.
"""

import os
import time
from dataclasses import dataclass

#: Most busy CPUs, as a share of all.
MAX_LOAD = 0.10
#: Largest share of stolen time.
MAX_STEAL = 0.05
#: Largest spread (see `spread`) of a row that is not noisy.
NOISY = 0.30
#: Length of a look at the machine, in seconds.
LOOK = 0.5


def spread(samples):
    """Returns half the range of the runs, as a share of its middle."""
    middle = (max(samples) + min(samples)) / 2
    return (max(samples) - min(samples)) / 2 / middle if middle else 0


@dataclass
class Times:
    """CPU time of the machine since its start, in ticks (proc_stat(5))."""

    total: int
    idle: int
    steal: int

    @staticmethod
    def now():
        with open("/proc/stat", encoding="ascii") as file:
            # user nice system idle iowait irq softirq steal; guest times are part of user and nice.
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return Times(sum(ticks), ticks[3] + ticks[4], ticks[7])

    def since(self, earlier):
        return Times(self.total - earlier.total, self.idle - earlier.idle, self.steal - earlier.steal)

    def share(self, ticks):
        return ticks / self.total if self.total else 0.0


@dataclass
class State:
    """How quiet the machine was during a row."""

    load: float
    steal: float

    @property
    def loaded(self):
        return self.load > MAX_LOAD or self.steal > MAX_STEAL

    def words(self):
        return f"load {self.load * os.cpu_count():.2f} steal {100 * self.steal:.0f} %"

    def verdict(self, missed):
        return "no verdict: the machine is loaded" if self.loaded else "MISSED" if missed else "met"

    def as_data(self):
        return {"load": self.load * os.cpu_count(), "steal": self.steal, "loaded": self.loaded}


def look():
    """Returns the share of the CPUs that is busy now. The caller runs nothing meanwhile."""
    before = Times.now()
    time.sleep(LOOK)
    taken = Times.now().since(before)
    return taken.share(taken.total - taken.idle)


class Watch:
    """Watches the machine during a row: made before its runs, `end` after them."""

    def __init__(self):
        self.load = look()
        self.begin = Times.now()

    def end(self):
        taken = Times.now().since(self.begin)
        return State(max(self.load, look()), taken.share(taken.steal))


def mark(samples):
    """Returns " noisy" for runs that spread too far, else nothing."""
    return " noisy" if len(samples) > 1 and spread(samples) > NOISY else ""
