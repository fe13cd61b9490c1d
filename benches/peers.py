#!/usr/bin/env python3
"""Tasks per second of `mitosis run` beside xargs, GNU parallel and HyperQueue on this machine.

Every tool runs the same commands at the same parallelism, the tools in turn within a round, so that noise meets all of
them. A tool that is not installed is left out and named. The chart of the README was made with

    pip install hyperqueue==0.27.0 matplotlib
    cargo build --release && python3 benches/peers.py --svg benches/peers.svg

Compare figures of one call only: another machine or another hour is another scale.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def main():
    options = arguments()
    tools = {
        "mitosis run": mitosis(options),
        "xargs -P": xargs(options),
        "GNU parallel": parallel(options),
        "HyperQueue": hyperqueue(options),
    }
    missing = [name for name, run in tools.items() if run is None]
    for name in missing:
        print(f"{name} is not installed and left out", file=sys.stderr)
    rates = {name: [] for name, run in tools.items() if run}
    for number in range(options.rounds):
        for name in rates:
            rates[name].append(options.tasks / tools[name]())
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    figures = {name: figure(values) for name, values in rates.items()}
    report = {"tasks": options.tasks, "jobs": options.jobs, "rounds": options.rounds, "tasks_per_second": figures}
    print(json.dumps(report, indent=2))
    if options.svg:
        draw(figures, options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mitosis", default="target/release/mitosis", help="the program to measure")
    parser.add_argument("--tasks", type=int, default=3000, help="tasks per tool and round")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="tasks at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--svg", help="draw the medians into this file (needs matplotlib)")
    return parser.parse_args()


def figure(values):
    return {"median": round(statistics.median(values)), "lowest": round(min(values)), "highest": round(max(values))}


def timed(command, **streams):
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **streams)
    return time.monotonic() - began


def lines(options):
    """One shell line per task, as xargs, parallel and `mitosis run` read them."""
    text = tempfile.TemporaryFile()
    text.write(b"true\n" * options.tasks)
    text.seek(0)
    return text


def mitosis(options):
    program = os.path.abspath(options.mitosis)
    if not os.access(program, os.X_OK):
        sys.exit(f"{options.mitosis} is not there; `cargo build --release` makes it, --mitosis names another")
    return lambda: timed([program, "run", "--workers", str(options.jobs)], stdin=lines(options))


def xargs(options):
    if not shutil.which("xargs"):
        return None
    command = ["xargs", "-d", "\n", "-I{}", f"-P{options.jobs}", "sh", "-c", "{}"]
    return lambda: timed(command, stdin=lines(options))


def parallel(options):
    if not shutil.which("parallel"):
        return None
    return lambda: timed(["parallel", "-j", str(options.jobs)], stdin=lines(options))


def hyperqueue(options):
    try:
        import hyperqueue as hq
        from hyperqueue.cluster import WorkerConfig
    except ImportError:
        return None

    def run():
        # Its server and worker are started outside the time that counts; the others' starts count. Its client looks for
        # the end once a second, so a task that waits for all others notes the time.
        with tempfile.TemporaryDirectory() as place, hq.LocalCluster() as cluster:
            cluster.start_worker(WorkerConfig(cores=options.jobs))
            client = cluster.client()
            job = hq.Job(max_fails=0, default_workdir=place)
            nowhere = {"stdout": None, "stderr": None}
            tasks = [job.program(["sh", "-c", "true"], **nowhere) for _ in range(options.tasks)]
            job.program(["sh", "-c", "date +%s.%N > end"], deps=tasks, **nowhere)
            began = time.time()
            client.wait_for_jobs([client.submit(job)])
            with open(os.path.join(place, "end")) as end:
                return float(end.read()) - began

    return run


def draw(figures, options):
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: smaller, and in the font of whoever reads.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers"})
    import matplotlib.pyplot as plt

    names = sorted(figures, key=lambda name: figures[name]["median"])
    medians = [figures[name]["median"] for name in names]
    spread = [
        [figures[name]["median"] - figures[name]["lowest"] for name in names],
        [figures[name]["highest"] - figures[name]["median"] for name in names],
    ]
    fig, axes = plt.subplots(figsize=(7, 0.6 + 0.45 * len(names)))
    colours = ["#b5482a" if name.startswith("mitosis") else "#8a8a8a" for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, height=0.6, ecolor="#444444")
    for at, value in enumerate(medians):
        axes.text(max(medians) * 0.01, at, f"{value}", va="center", color="white", fontweight="bold")
    axes.set_xlabel(f"`true` tasks per second, {options.jobs} at a time (median and range of {options.rounds} rounds)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    fig.tight_layout()
    fig.savefig(options.svg, metadata={"Date": None})


if __name__ == "__main__":
    main()
