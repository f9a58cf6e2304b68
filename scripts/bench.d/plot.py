"""Draws throughput against size of write, connections and round-trip time, as SVG."""

import math

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 44
COLUMNS = 3
COLOURS = {"netkat": "#d1495b", "nc": "#30638e", "ncat": "#30638e", "kernel": "#6b8f3c"}


def write(path, facts, lines):
    panels = {}
    for line in lines:
        if line.series and line.figure.key == "rate":
            title, x = line.series
            for tool, samples in line.samples.items():
                panels.setdefault(title, {}).setdefault(tool, []).append((x, line.medians[tool], min(samples), max(samples)))
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (title, tools) in enumerate(panels.items()):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *panel(title, tools), "</g>"]
    parts.append(
        f'<text x="8" y="{height - 8}" fill="#555">Linux {facts["kernel"]}, {facts["cores"]} x {escape(facts["cpu"])}; '
        f'medians of {facts["runs"]} runs, bars from minimum to maximum</text></svg>'
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts) + "\n")


def panel(title, tools):
    """Draws one pair of axes: evenly spaced values of x, MiB/s from zero."""
    places = sorted({x for points in tools.values() for x, *_ in points})
    top = nice(max(high for points in tools.values() for *_, high in points))

    def across(x):
        return LEFT + (places.index(x) + 0.5) * (WIDTH - LEFT - RIGHT) / len(places)

    def up(value):
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    yield f'<text x="{LEFT}" y="16" font-weight="bold">MiB/s by {escape(title)}</text>'
    for step in range(5):
        value = top * step / 4
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    for x in places:
        yield f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
    for number, (tool, points) in enumerate(tools.items()):
        colour = COLOURS.get(tool, "#555")
        points.sort()
        corners = " ".join(f"{across(x):.1f},{up(value):.1f}" for x, value, *_ in points)
        yield f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, value, low, high in points:
            yield f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}" stroke="{colour}"/>'
            yield f'<circle cx="{across(x):.1f}" cy="{up(value):.1f}" r="3" fill="{colour}"/>'
        yield f'<text x="{LEFT + 8 + 70 * number}" y="{HEIGHT - 8}" fill="{colour}">{tool}</text>'


def nice(value):
    """Returns the next round number from `value` upwards."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")
