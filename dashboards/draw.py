#!/usr/bin/env python3
"""Draws each dashboard as a picture from what a Prometheus recorded; `pictures` starts everything and calls this.

    draw.py URL SECONDS    the last SECONDS of the Prometheus at URL, as `<dashboard>.png` beside this file
"""

import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import LogNorm  # noqa: E402
from PIL import Image  # noqa: E402

HERE = pathlib.Path(__file__).parent
CELL_W, CELL_H, HEAD = 0.55, 0.36, 0.42
SI = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")]
TIME = [(3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "us"), (0, "ns")]


def words(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "-"
    if decimals == 0:
        return f"{value:.0f}"
    if unit == "s" and value:
        step, name = next(one for one in TIME if abs(value) >= one[0])
        return f"{value / (step or 1e-9):.3g} {name}"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    step, name = next((one for one in SI if abs(value) >= one[0]), (1, ""))
    suffix = {"bytes": "B", "ops": "/s"}.get(unit, "")
    return f"{value / step:.3g} {name}{suffix}".strip()


def ask(url, expr, start, end, step):
    for variable in ("$job", "$instance", "$worker"):
        expr = expr.replace(variable, ".+")
    expr = expr.replace("$__rate_interval", "10s")
    query = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}") as answer:
        return json.load(answer)["data"]["result"]


def legend(pattern, labels):
    for name, value in labels.items():
        pattern = pattern.replace("{{%s}}" % name, value)
    return pattern


def curves(panel, fetch):
    for target in panel["targets"]:
        for series in fetch(target["expr"]):
            points = [(at, float(value)) for at, value in series["values"]]
            yield legend(target["legendFormat"], series["metric"]), points


def draw_stat(axes, panel, fetch):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = [(name, points[-1][1]) for name, points in curves(panel, fetch) if points]
    color = "lightgrey"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if found and (step["value"] is None or found[0][1] >= step["value"]):
            color = step["color"]
    axes.set_facecolor({"green": "#cfe8cf", "orange": "#fbe0b5", "red": "#f5c2c2"}.get(color, color))
    decimals = panel["fieldConfig"]["defaults"].get("decimals")
    text = "\n".join(words(value, unit, decimals) + (f"  {name}" if len(found) > 1 else "") for name, value in found) or "no data"
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=15 if len(found) < 2 else 10, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_curves(axes, panel, fetch, start):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = "stacking" in panel["fieldConfig"]["defaults"]["custom"]
    colors = {one["matcher"]["options"]: one["properties"][0]["value"]["fixedColor"]
              for one in panel["fieldConfig"]["overrides"]}
    found = list(curves(panel, fetch))
    if stacked and found:
        times = sorted({at for _, points in found for at, _ in points})
        rows = [[dict(points).get(at, 0) for at in times] for _, points in found]
        axes.stackplot([at - start for at in times], rows, labels=[name for name, _ in found], alpha=0.7,
                       colors=[colors.get(name, f"C{at}") for at, (name, _) in enumerate(found)])
    else:
        for name, points in found:
            axes.plot([at - start for at, _ in points], [value for _, value in points], label=name, linewidth=1)
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
        axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=0.8)
    finite = [value for _, points in found for _, value in points if math.isfinite(value) and value > 0]
    if unit == "s" and finite and max(finite) > 30 * min(finite):
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: words(value, unit))
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    if found:
        explain(axes, found)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)


def explain(axes, found):
    """A legend below the curves; of many curves, those that are not 0 all the time."""
    named = dict(zip(*reversed(axes.get_legend_handles_labels())))
    moving = [name for name, points in found if any(value for _, value in points if math.isfinite(value))]
    shown = list(named) if len(named) <= 4 else [name for name in named if name in moving]
    columns = max(1, int(axes.get_position().width * 24 * CELL_W / (0.35 + 0.045 * max(map(len, shown), default=1))))
    shown = shown[:3 * columns]
    labels, hidden = list(shown), len(named) - len(shown)
    handles = [named[name] for name in shown]
    if hidden:
        handles.append(plt.Line2D([], [], linewidth=0))
        labels.append(f"{hidden} more")
    axes.legend(handles, labels, fontsize=5.5, loc="upper left", bbox_to_anchor=(-0.02, -0.07), ncol=columns,
                frameon=False, columnspacing=1, handlelength=1.2, labelspacing=0.2)


def draw_heatmap(axes, panel, fetch, start):
    found = sorted(((float(series["metric"]["le"]), dict(series["values"]))
                    for series in fetch(panel["targets"][0]["expr"])), key=lambda one: one[0])
    times = sorted({at for _, values in found for at in values})
    below, rows, bounds = [0.0] * len(times), [], []
    for bound, values in found:
        now = [float(values.get(at, "0")) for at in times]
        rows.append([max(high - low, 0) or math.nan for high, low in zip(now, below)])
        bounds.append(bound)
        below = now
    if rows:
        axes.pcolormesh([at - start for at in times], range(len(bounds)), rows, cmap="Oranges", shading="nearest",
                        norm=LogNorm())
        axes.set_yticks(range(0, len(bounds), 3))
        axes.set_yticklabels(["inf" if math.isinf(bound) else words(bound, "s") for bound in bounds[::3]])


def draw(url, name, start, end):
    board = json.loads((HERE / "grafana" / f"{name}.json").read_text())
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    size = (24 * CELL_W, height * CELL_H + HEAD)
    figure = plt.figure(figsize=size, dpi=72)
    figure.suptitle(board["title"], fontsize=11, y=1 - 0.12 / size[1])
    step = max((end - start) / 240, 1)

    def fetch(expr):
        return ask(url, expr, start, end, step)

    for panel in board["panels"]:
        grid = panel["gridPos"]
        left, top = grid["x"] / 24, (HEAD + grid["y"] * CELL_H) / size[1]
        if panel["type"] == "row":
            figure.text(0.005, 1 - top - 0.3 * CELL_H / size[1], panel["title"], fontsize=9, weight="bold", va="top")
            continue
        wide, high = grid["w"] / 24, grid["h"] * CELL_H / size[1]
        small = panel["type"] == "stat"
        below = {"stat": 0.1, "heatmap": 0.3}.get(panel["type"], 0.62)
        box = [left + (0.004 if small else 0.042), 1 - top - high + below / size[1],
               wide - (0.008 if small else 0.05), high - (below + 0.32) / size[1]]
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=7.5, pad=3)
        axes.tick_params(labelsize=6)
        if small:
            draw_stat(axes, panel, fetch)
        elif panel["type"] == "heatmap":
            draw_heatmap(axes, panel, fetch, start)
        else:
            draw_curves(axes, panel, fetch, start)
        if not small:
            axes.set_xlim(0, end - start)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    picture = HERE / f"{name}.png"
    figure.savefig(picture)
    # A palette makes it a third of the size.
    with Image.open(picture) as full:
        small = full.convert("RGB").quantize(48)
    small.save(picture, optimize=True)
    plt.close(figure)


def main():
    url, seconds = sys.argv[1].rstrip("/"), float(sys.argv[2])
    end = time.time()
    for path in sorted((HERE / "grafana").glob("*.json")):
        draw(url, path.stem, end - seconds, end)


if __name__ == "__main__":
    main()
