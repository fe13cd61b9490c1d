"""The contestants: how each tool is told to run the same tasks."""

import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Callable

from . import measure

# Tools that take milliseconds for a task get a part of the tasks: rates compare all the same.
SLOW = 4


@dataclasses.dataclass
class Contestant:
    """A tool with its options; `measure` runs it once."""

    name: str
    measure: Callable


class Peers:
    """Every tool of this machine."""

    def __init__(self, options):
        self.jobs = options.jobs
        self.mitosis = os.path.abspath(options.mitosis)
        if not os.access(self.mitosis, os.X_OK):
            sys.exit(f"{options.mitosis} is not there; `cargo build --release` makes it, --mitosis names another")
        self.forkrun_file = options.forkrun and os.path.abspath(options.forkrun)
        if self.forkrun_file and not os.path.isfile(self.forkrun_file):
            sys.exit(f"{options.forkrun} is not there")
        self.scratch = tempfile.TemporaryDirectory(prefix="peers-")
        self.place = pathlib.Path(self.scratch.name)
        self.environment = dict(os.environ, XDG_STATE_HOME=str(self.place / "state"))
        self.has = {
            "xargs": bool(shutil.which("xargs")),
            "GNU parallel": bool(shutil.which("parallel")),
            "rust-parallel": bool(shutil.which("rust-parallel")),
            "forkrun": bool(self.forkrun_file),
            "HyperQueue": has_hyperqueue(),
        }
        self.missing = [name for name, there in self.has.items() if not there]

    def file(self, name, lines):
        path = self.place / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def command(self, name, needs, command, lines, slow=False):
        """A contestant that is a command which reads lines; an empty list where its tool is missing."""
        if needs and not self.has[needs]:
            return []
        words = list(map(str, command))
        label = f"{name}-{len(lines)}".replace("/", "_").replace(" ", "_")

        def run(workload):
            part = lines[: max(1, len(lines) // SLOW)] if slow else lines
            path = self.file(f"{workload.file_name}.{label}", part)
            try:
                return measure.run(words, path, len(part), workload.bytes_per_task is not None, self.environment)
            finally:
                path.unlink()

        return [Contestant(name, run)]

    def run(self, name, lines, *extra):
        command = [self.mitosis, "run", "--progress", "never", *extra, "-"]
        return self.command(name, None, command, lines)

    def runs(self, lines, power=False):
        """`mitosis run` as it is compared everywhere: at the others' parallelism, and at its own default."""
        jobs = str(self.jobs)
        found = self.run(f"run, {jobs} workers", lines, "--workers", jobs) + self.run("run, default", lines)
        if power:
            found += self.run(f"run, {jobs} workers, power", lines, "--workers", jobs, "--durability", "power")
        return found

    def run_argv(self, lines):
        jobs = str(self.jobs)
        return self.run(f"run, {jobs} workers, argv tasks", lines, "--workers", jobs, "--format", "jsonl")

    def xargs_shell(self, lines):
        command = ["xargs", "-d", "\n", f"-P{self.jobs}", "-I{}", "sh", "-c", "{}"]
        return self.command("xargs -I{} sh -c {}", "xargs", command, lines)

    def xargs_program(self, argv, tasks):
        """A program for each line, which is no argument of it: the fairest of the three."""
        command = ["xargs", "-d", "\n", f"-P{self.jobs}", "-I{}", *argv]
        return self.command("xargs -I{} PROGRAM", "xargs", command, ["x"] * tasks)

    def xargs_argument(self, argv, tasks):
        """The last word of the command is what comes in."""
        command = ["xargs", "-d", "\n", f"-P{self.jobs}", "-n1", *argv[:-1]]
        if len(argv) == 1:
            command, argv = command + argv, ["x"]
        return self.command("xargs -n1 PROGRAM", "xargs", command, [argv[-1]] * tasks)

    def parallel(self, lines):
        command = ["parallel", "--will-cite", "-j", self.jobs]
        return self.command("GNU parallel", "GNU parallel", command, lines, slow=True)

    def rust_parallel(self, lines, shell):
        command = ["rust-parallel", "-j", self.jobs]
        if shell:
            command += ["--shell", "--shell-path", "/bin/sh"]
        return self.command("rust-parallel", "rust-parallel", command, lines)

    def forkrun(self, argv, tasks):
        """As with `xargs -n1`: the last word is what comes in."""
        words, last = (argv[:-1], argv[-1]) if len(argv) > 1 else (argv, "x")
        script = '. "$1" >/dev/null; shift; frun "$@"'
        command = ["bash", "-c", script, "bash", self.forkrun_file, "-l", "1", "-j", self.jobs, "--", *words]
        return self.command("forkrun -l 1", "forkrun", command, [last] * tasks)

    def hyperqueue(self, argv, tasks):
        if not self.has["HyperQueue"]:
            return []
        tasks = max(1, tasks // SLOW)
        return [Contestant("HyperQueue", lambda _: hyperqueue(argv, tasks, self.jobs))]


def has_hyperqueue():
    try:
        import hyperqueue  # noqa: F401
    except ImportError:
        return False
    return True


def hyperqueue(argv, tasks, jobs):
    """Its server and worker are started outside the time that counts, and their CPU is not seen; the others' starts count.
    Its client looks for the end once a second, so a task that waits for all others notes the time."""
    import hyperqueue as hq
    from hyperqueue.cluster import WorkerConfig

    # It writes about itself to standard output, which is for figures.
    with quiet(), tempfile.TemporaryDirectory() as place, hq.LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=jobs))
        client = cluster.client()
        job = hq.Job(max_fails=0, default_workdir=place)
        nowhere = {"stdout": None, "stderr": None}
        before = [job.program(argv, **nowhere) for _ in range(tasks)]
        job.program(["sh", "-c", "date +%s.%N > end"], deps=before, **nowhere)
        began = time.time()
        client.wait_for_jobs([client.submit(job)])
        seconds = float(pathlib.Path(place, "end").read_text()) - began
    return measure.Sample(tasks=tasks, seconds=seconds)


class quiet:
    """Standard output and error go nowhere meanwhile, also those of libraries that are not Python."""

    def __enter__(self):
        self.kept = [os.dup(number) for number in (1, 2)]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)

    def __exit__(self, *_):
        for number, kept in zip((1, 2), self.kept):
            os.dup2(kept, number)
            os.close(kept)
