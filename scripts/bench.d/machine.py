"""Tells whether the machine is quiet enough for a verdict: what others use of it, and what its host takes away."""

import time

#: Share of all CPUs that others may use while nothing is measured.
MOST_LOAD = 0.10
#: Share of all CPUs' time that the virtual machine's host may take away during a row.
MOST_STEAL = 0.05
#: Range of the runs, as a share of its middle, above which a row is noisy.
MOST_SPREAD = 0.30
#: Time in which the load is looked at before a row, in seconds.
LOOK = 0.5


def _times():
    """Returns total, busy and stolen time of all CPUs so far, in clock ticks (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    busy = user + nice + system + irq + softirq
    return busy + idle + iowait + steal, busy, steal


def _shares(before):
    total, busy, steal = (now - then for now, then in zip(_times(), before))
    return (busy / total, steal / total) if total else (0.0, 0.0)


class Watch:
    """Looks at the machine before a row, which `end` ends."""

    def __init__(self):
        idle = _times()
        time.sleep(LOOK)
        self.load = _shares(idle)[0]
        self._start = _times()
        self.steal = 0.0

    def end(self):
        self.steal = _shares(self._start)[1]
        return self

    @property
    def quiet(self):
        return self.load <= MOST_LOAD and self.steal <= MOST_STEAL

    def words(self, samples, verdict=""):
        """Returns the end of a row's line: load, steal, and the verdict if the machine was quiet for it."""
        found = f"load {self.load:.0%}, steal {self.steal:.0%}"
        if samples and (max(samples) - min(samples)) > MOST_SPREAD * (max(samples) + min(samples)) / 2:
            found += ", noisy"
        if verdict and not self.quiet:
            verdict = "no verdict: the machine is loaded"
        return f"[{found}] {verdict}".rstrip()

    def as_data(self):
        return {"load": self.load, "steal": self.steal, "quiet": self.quiet}
