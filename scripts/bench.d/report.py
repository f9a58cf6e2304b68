"""Prints the table as text and writes it as JSON."""

import json
import os
import platform
import re

from machine import spread


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(result):
    figure = result.figure
    sign = ">=" if figure.more_is_better else "<="
    words = [f"{figure.name:46} netkat {number(result.medians['netkat']):>7} {figure.unit:6}"]
    if figure.limit is not None:
        words.append(f"(wanted {sign} {figure.limit:g})")
    for name, value in result.medians.items():
        if name == "netkat":
            continue
        ratio = f"ratio {result.ratios[name]:.2f}" if name in result.ratios else "no ratio"
        wanted = f", wanted {sign} {figure.wanted[name]:g}" if name in figure.wanted else ""
        words.append(f" {name} {number(value)} ({ratio}{wanted})")
    if len(result.samples["netkat"]) > 1:
        words.append(f" +-{100 * spread(result.samples['netkat']):.0f} %{result.noise}")
    words.append(f" [{result.machine.words()}]")
    if figure.wanted or figure.limit is not None:
        words.append(f" {result.machine.verdict(result.missed)}")
    return " ".join(words)


def facts(options):
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        congestion = file.read().strip()
    with open("/proc/cpuinfo", encoding="ascii") as file:
        cpu = re.search(r"model name\s*:\s*(.*)", file.read())
    return {"kernel": platform.release(), "cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(),
            "load": os.getloadavg()[0], "congestion_control": congestion, "runs": options.runs, "bytes": options.size}


def summary(of, lines):
    loaded = sum(one.machine.loaded for one in lines)
    quiet = [one for one in lines if not one.machine.loaded]
    missed = sum(bool(one.missed) for one in quiet)
    bounded = sum(bool(one.figure.wanted or one.figure.limit is not None) for one in quiet)
    return (f"Linux {of['kernel']}, {of['cores']} x {of['cpu']}, load {of['load']:.1f} at the end, the kernel's "
            f"congestion control {of['congestion_control']}; medians of {of['runs']} runs, +- half their range; "
            f"{bounded - missed} of {bounded} lines with a wanted value meet it"
            + (f"; {loaded} lines have no verdict, for the machine was loaded." if loaded else "."))


def write_json(path, of, lines):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**of, "rows": [one.as_data() for one in lines]}, file, indent=1)
        file.write("\n")
