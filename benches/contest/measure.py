"""Running a contestant once: wall time, its output, CPU and context switches of its whole tree, and its own peak memory."""

import ctypes
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
# Seconds for what a contestant left behind to end.
STRAYS = 10
# Seconds between two looks at the memory of a contestant.
LOOK = 0.02


@dataclasses.dataclass
class Sample:
    """One contestant in one round. What nobody could measure is None."""

    tasks: int
    seconds: float
    cpu_seconds: float | None = None
    switches: int | None = None
    peak_bytes: int | None = None
    output_bytes: int | None = None
    ideal: bool = False


def adopt_orphans():
    """What a contestant leaves behind becomes a child of this process, so that the kernel counts it here."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def round_of(workload, number):
    """A sample of every contestant, in an order that turns with the rounds."""
    contestants = workload.contestants
    first = number % len(contestants)
    samples = {}
    for contestant in contestants[first:] + contestants[:first]:
        samples[contestant.name] = contestant.measure(workload)
    return samples


def of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_nvcsw + usage.ru_nivcsw


def run(command, lines, tasks, counts_output, environment=None):
    """Runs a command on these lines of standard input. Its output goes to a reader that counts, or nowhere."""
    reap_strays()
    with lines.open("rb") as stdin:
        before = of_children()
        began = time.monotonic()
        reader = counter() if counts_output else None
        stdout = reader.stdin if reader else subprocess.DEVNULL
        child = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment, start_new_session=True
        )
        if reader:
            reader.stdin.close()
        with Peak(child.pid) as peak:
            said = child.stderr.read()
            child.wait()
        output, reader_cpu, reader_switches = finish(reader) if reader else (None, 0, 0)
        seconds = time.monotonic() - began
    reap_strays()
    if child.returncode != 0:
        words = said.decode(errors="replace").strip().splitlines()[-3:]
        sys.exit(f"`{' '.join(map(str, command))}` ended with {child.returncode}: {' | '.join(words)}")
    after = of_children()
    return Sample(
        tasks=tasks,
        seconds=seconds,
        cpu_seconds=after[0] - before[0] - reader_cpu,
        switches=after[1] - before[1] - reader_switches,
        peak_bytes=peak.bytes,
        output_bytes=output,
    )


class Peak:
    """The most memory that a process has had, without its children. Looked at while it lives: what the kernel tells of a
    dead one begins with the size of its parent at the time of the fork."""

    def __init__(self, pid):
        self.status = f"/proc/{pid}/status"
        self.bytes = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(LOOK):
            try:
                with open(self.status) as lines:
                    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
            except OSError:
                return
            if found:
                self.bytes = int(found[0]) * 1024


def counter():
    return subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(reader):
    """What the reader counted, and what it cost, which is not the contestant's."""
    count = int(reader.stdout.read())
    _, status, usage = os.wait4(reader.pid, 0)
    reader.returncode = os.waitstatus_to_exitcode(status)
    return count, usage.ru_utime + usage.ru_stime, usage.ru_nvcsw + usage.ru_nivcsw


def reap_strays():
    """Waits for processes that a contestant left behind, which count as its own; not for what stays for good."""
    until = time.monotonic() + STRAYS
    while time.monotonic() < until:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)


def alone(argv, times):
    """Seconds from the start of a program to its end when nothing else runs: the median."""
    path = argv[0]
    samples = []
    for _ in range(times):
        began = time.monotonic()
        os.waitpid(os.posix_spawn(path, argv, os.environ), 0)
        samples.append(time.monotonic() - began)
    return statistics.median(samples)
