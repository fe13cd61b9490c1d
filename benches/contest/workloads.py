"""The kinds of tasks, how many of each, who runs them, and what they are compared with."""

import dataclasses
import json
import os
import random
import shutil

from . import measure
from .tools import Contestant

SHELL = "xargs -I{} sh -c {}"
PROGRAM = "xargs -I{} PROGRAM"
IDEAL = "ideal"
SORTED = "/etc/passwd"


@dataclasses.dataclass
class Workload:
    """One table of the report."""

    name: str
    contestants: list
    baseline: str
    rounds: int
    # What each task writes; None where nobody looks.
    bytes_per_task: int | None = None

    @property
    def file_name(self):
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)


def chosen(options, peers):
    wanted = options.only or [name for name in NAMES if options.long or name not in LONG_ONLY]
    return [KINDS[name](name, options, peers) for name in wanted]


def size(options, short, long):
    return options.tasks or (long if options.long else short)


def builtin(name, options, peers):
    """Shell lines that start no program."""
    return of_builtins(name, options, peers, size(options, 800, 2000), options.rounds)


def of_builtins(name, options, peers, tasks, rounds):
    lines = ["true"] * tasks
    contestants = (
        peers.xargs_shell(lines)
        + peers.runs(lines, power=True)
        + peers.parallel(lines)
        + peers.rust_parallel(lines, shell=True)
        + peers.hyperqueue(["sh", "-c", "true"], tasks)
    )
    return Workload(name, contestants, SHELL, rounds)


def many(tasks):
    """The same, for how rate and memory depend on the length of the list; the slow ones are left out."""

    def kind(name, options, peers):
        lines = ["true"] * tasks
        contestants = peers.xargs_shell(lines) + peers.runs(lines)
        return Workload(name, contestants, SHELL, min(options.rounds, 3))

    return kind


def program(argv, short, long, written=None):
    """A real program: as shell lines, as argv tasks, and every form of the others."""

    def kind(name, options, peers):
        tasks = size(options, short, long)
        lines = [" ".join(argv)] * tasks
        json_lines = [json.dumps({"args": argv})] * tasks
        contestants = (
            peers.xargs_program(argv, tasks)
            + peers.xargs_shell(lines)
            + peers.xargs_argument(argv, tasks)
            + peers.runs(lines, power=True)
            + peers.run_argv(json_lines)
            + peers.parallel(lines)
            + peers.rust_parallel(lines, shell=False)
            + peers.forkrun(argv, tasks)
        )
        if written is None:
            contestants += peers.hyperqueue(argv, tasks)
        return Workload(name, contestants, PROGRAM, options.rounds, written and written())

    return kind


def output(tasks, size_of_each):
    """Tasks that write much, through one pipe."""

    def kind(name, options, peers):
        lines = [f"head -c {size_of_each} /dev/zero"] * tasks
        contestants = peers.xargs_shell(lines) + peers.runs(lines)
        return Workload(name, contestants, SHELL, options.rounds, size_of_each)

    return kind


def sleeps(*groups):
    """Tasks that sleep, beside half (of two at a time) of the sum of their times alone. Groups are (short, long, seconds)."""

    def kind(name, options, peers):
        durations = [seconds for short, long, seconds in groups for _ in range(long if options.long else short)]
        # The same order in every call.
        random.Random(12).shuffle(durations)
        lines = [f"sleep {seconds}" for seconds in durations]
        contestants = [ideal(durations, options.jobs)] + peers.xargs_shell(lines) + peers.runs(lines)
        return Workload(name, contestants, IDEAL, options.rounds)

    return kind


def ideal(durations, jobs):
    program = shutil.which("sleep") or "/bin/sleep"

    def run(_):
        overhead = measure.alone([program, "0.01"], 20) - 0.01
        seconds = sum(duration + overhead for duration in durations) / jobs
        return measure.Sample(tasks=len(durations), seconds=seconds, ideal=True)

    return Contestant(IDEAL, run)


KINDS = {
    "true": builtin,
    "/bin/true": program(["/bin/true"], 800, 2000),
    "/bin/echo hello": program(["/bin/echo", "hello"], 500, 2000, lambda: len("hello\n")),
    f"/usr/bin/sort {SORTED}": program(["/usr/bin/sort", SORTED], 300, 1000, lambda: os.path.getsize(SORTED)),
    "400 outputs of 100 KB": output(400, 100_000),
    "20 outputs of 20 MB": output(20, 20_000_000),
    "10 ms": sleeps((200, 500, 0.01)),
    "1 ms and long": sleeps((200, 400, 0.001), (0, 4, 2), (2, 0, 0.5)),
    "5,000 lines": many(5000),
    "100,000 lines": many(100_000),
}
NAMES = list(KINDS)
LONG_ONLY = {"5,000 lines", "100,000 lines"}
