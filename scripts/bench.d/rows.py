"""Rows of the table. Measuring a row runs its contenders in turn, several times; the median counts."""

from dataclasses import dataclass, field
from statistics import median
from typing import Callable

from machine import State, Watch, mark


@dataclass
class Figure:
    """One line of the table. `wanted` bounds netkat's ratio to each contender, `limit` netkat's own value.
    Both are minima where more is better, else maxima."""

    name: str
    key: str
    unit: str
    more_is_better: bool = True
    wanted: dict[str, float] = field(default_factory=dict)
    limit: float | None = None


@dataclass
class Row:
    """Contenders by name: functions of (lab, number of the run) that return values by `Figure.key`."""

    contenders: dict[str, Callable]
    figures: list[Figure]
    #: Keyword arguments of Lab.
    lab: dict = field(default_factory=dict)
    #: Functions of (lab) that fail unless the payload arrives unchanged.
    verify: list[Callable] = field(default_factory=list)
    #: Panel of the plot, and x on its axis.
    series: tuple[str, float] | None = None


def meets(value, bound, more_is_better):
    return value >= bound if more_is_better else value <= bound


@dataclass
class Line:
    """A figure's result."""

    figure: Figure
    medians: dict[str, float]
    samples: dict[str, list[float]]
    series: tuple[str, float] | None
    machine: State

    @property
    def noise(self):
        """Returns the mark of a line of which any contender's runs spread too far."""
        return max(map(mark, self.samples.values()), default="")

    @property
    def ratios(self):
        ours = self.medians["netkat"]
        return {name: ours / value for name, value in self.medians.items() if name != "netkat" and value}

    @property
    def missed(self):
        """Returns the bounds that do not hold, as text."""
        figure, sign = self.figure, ">=" if self.figure.more_is_better else "<="
        missed = [f"{sign} {bound:g} of {name}" for name, bound in figure.wanted.items()
                  if name in self.ratios and not meets(self.ratios[name], bound, figure.more_is_better)]
        if figure.limit is not None and not meets(self.medians["netkat"], figure.limit, figure.more_is_better):
            missed.append(f"{sign} {figure.limit:g} {figure.unit}")
        return missed

    def as_data(self):
        return {"name": self.figure.name, "unit": self.figure.unit, "more_is_better": self.figure.more_is_better,
                "medians": self.medians, "ratios": self.ratios, "wanted": self.figure.wanted,
                "limit": self.figure.limit, "missed": self.missed, "noisy": bool(self.noise),
                "machine": self.machine.as_data(), "series": self.series, "samples": self.samples}


def measure(row, lab, runs):
    for verify in row.verify:
        verify(lab)
        lab.end_processes()
    taken, watch = {name: [] for name in row.contenders}, Watch()
    for number in range(runs):
        for name, contender in row.contenders.items():
            taken[name].append(contender(lab, number))
            lab.end_processes()
    lines, machine = [], watch.end()
    for figure in row.figures:
        samples = {name: [values[figure.key] for values in list_ if figure.key in values]
                   for name, list_ in taken.items()}
        samples = {name: values for name, values in samples.items() if values}
        medians = {name: median(values) for name, values in samples.items()}
        lines.append(Line(figure, medians, samples, row.series, machine))
    return lines
