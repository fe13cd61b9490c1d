#!/usr/bin/env python3
"""`mitosis run` beside xargs, GNU parallel, HyperQueue, rust-parallel and forkrun on this machine.

Every tool runs the same tasks at the same parallelism, the tools in turn within a round, so that noise meets all of
them. Figures are medians over the rounds, and ratios are medians of each round's ratio to the named baseline. CPU and
context switches are the kernel's count of the whole tree, the tasks included, for each task. A tool that is not
installed is left out and named.

    cargo build --release && python3 benches/peers.py             # all kinds of tasks, about three minutes
    python3 benches/peers.py --long                               # full sizes, about an hour
    python3 benches/peers.py --only /bin/true --json              # one kind, for programs

    pip install hyperqueue==0.27.0; cargo install rust-parallel   # two of the peers
    --forkrun FILE                                                # forkrun's `frun.bash`

The chart of the README is `--only true --tasks 3000 --rounds 5 --svg benches/peers.svg` (needs matplotlib).
Compare figures of one call only: another machine or another hour is another scale.
"""

import argparse
import json
import os
import sys

# The parts beside this file leave nothing beside it.
sys.dont_write_bytecode = True

from contest import chart, measure, tools, workloads
from contest.report import Report


def main():
    options = arguments()
    measure.adopt_orphans()
    peers = tools.Peers(options)
    for name in peers.missing:
        print(f"{name} is not installed and left out", file=sys.stderr)
    chosen = workloads.chosen(options, peers)
    report = Report(options, peers.missing, chosen)
    for number in range(max(workload.rounds for workload in chosen)):
        for workload in chosen:
            if number < workload.rounds:
                report.add(workload, measure.round_of(workload, number))
        print(f"round {number + 1} is over", file=sys.stderr)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print(report.as_text(), end="")
    if options.svg:
        chart.draw(report, options.svg)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mitosis", default="target/release/mitosis", help="the program to measure")
    parser.add_argument("--forkrun", metavar="FILE", help="forkrun's `frun.bash`")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="tasks at a time")
    parser.add_argument("--rounds", type=int, help="rounds of every kind [default: 3, with --long 7]")
    parser.add_argument("--tasks", type=int, help="tasks of the kinds that do nothing but start a program")
    parser.add_argument("--only", metavar="KIND", action="append", help="a kind of tasks; --list has their names")
    parser.add_argument("--list", action="store_true", help="name the kinds of tasks and end")
    parser.add_argument("--long", action="store_true", help="full sizes")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--svg", metavar="FILE", help="draw the first kind's rates (needs matplotlib)")
    options = parser.parse_args()
    if options.list:
        print("\n".join(workloads.NAMES))
        sys.exit(0)
    unknown = set(options.only or []) - set(workloads.NAMES)
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; --list has their names")
    if options.jobs < 1 or (options.rounds or 1) < 1 or (options.tasks or 1) < 1:
        parser.error("jobs, rounds and tasks are at least 1")
    options.rounds = options.rounds or (7 if options.long else 3)
    return options


if __name__ == "__main__":
    main()
