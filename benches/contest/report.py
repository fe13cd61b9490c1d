"""Medians over the rounds, as tables and as JSON."""

import os
import platform
import statistics


class Report:
    """Collects the samples of every round."""

    def __init__(self, options, missing, workloads):
        self.jobs = options.jobs
        self.long = options.long
        self.missing = missing
        self.host = {
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "processor": processor(),
            "load_before": os.getloadavg()[0],
        }
        self.workloads = workloads
        self.rounds = {workload.name: [] for workload in workloads}

    def add(self, workload, samples):
        self.rounds[workload.name].append(samples)

    def of(self, workload):
        """The results of one workload, in the order of its contestants. Keys are JSON keys."""
        rounds = self.rounds[workload.name]
        return [result(workload, contestant.name, rounds) for contestant in workload.contestants]

    def as_json(self):
        return {
            "jobs": self.jobs,
            "long": self.long,
            "durability": "process, where a tool's name does not say `power`",
            "left_out": self.missing,
            "host": self.host,
            "workloads": [
                {
                    "name": workload.name,
                    "rounds": len(self.rounds[workload.name]),
                    "baseline": workload.baseline,
                    "results": self.of(workload),
                }
                for workload in self.workloads
            ],
        }

    def as_text(self):
        host = self.host
        parts = [
            f"{self.jobs} at a time on {host['cores']} cores ({host['processor']}, Linux {host['kernel']}), load before "
            f"{host['load_before']:.1f}; durability of `run`: process, or power where it says so\n"
        ]
        parts += [f"left out: {', '.join(self.missing)}\n"] if self.missing else []
        for workload in self.workloads:
            parts.append("\n" + self.table(workload))
        return "".join(parts)

    def table(self, workload):
        results = self.of(workload)
        rounds = len(self.rounds[workload.name])
        header = [
            f"{workload.name} ({rounds} rounds)", "tasks", "seconds", "tasks/s", "ratio", "CPU ms", "ratio", "switches", "peak MiB", "",
        ]
        rows = [header]
        for of in results:
            marks = [" <- baseline"] if of["tool"] == workload.baseline else []
            if of["output_bytes"] != of["output_bytes_expected"]:
                marks.append(f" gave {of['output_bytes']:,} of {of['output_bytes_expected']:,} bytes")
            peak = of["peak_bytes"] and of["peak_bytes"] / (1 << 20)
            rows.append([
                of["tool"], f"{of['tasks']:,}", number(of["seconds"], 2), number(of["tasks_per_second"], 0 if of["tasks_per_second"] > 100 else 1),
                number(of["ratio"], 2), number(of["cpu_ms_per_task"], 3), number(of["cpu_ratio"], 2),
                number(of["switches_per_task"], 1), number(peak, 0), ";".join(marks),
            ])
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])]
            lines.append(("  ".join(cells) + row[-1]).rstrip() + "\n")
        return "".join(lines)


def result(workload, name, rounds):
    samples = [samples[name] for samples in rounds]
    baselines = [samples.get(workload.baseline) for samples in rounds]
    tasks = samples[0].tasks

    def rate(sample):
        return sample.tasks / sample.seconds

    def cpu(sample):
        return None if sample.cpu_seconds is None else sample.cpu_seconds / sample.tasks

    def per_task(figure, scale=1.0):
        return median([figure(sample) for sample in samples], scale / tasks)

    def ratio(figure):
        pairs = [(figure(own), figure(base)) for own, base in zip(samples, baselines) if base]
        return median([own / base for own, base in pairs if own is not None and base])

    outputs = [sample.output_bytes for sample in samples]
    rates = [rate(sample) for sample in samples]
    # The worst of the rounds: a byte that is lost once is lost.
    output = None if None in outputs else min(outputs, key=lambda found: -abs(found - tasks * workload.bytes_per_task))
    return {
        "tool": name,
        "tasks": tasks,
        "tasks_per_second": statistics.median(rates),
        "tasks_per_second_lowest": min(rates),
        "tasks_per_second_highest": max(rates),
        "seconds": statistics.median(sample.seconds for sample in samples),
        "ratio": ratio(rate),
        "cpu_ms_per_task": per_task(lambda sample: sample.cpu_seconds, 1000),
        "cpu_ratio": ratio(cpu),
        "switches_per_task": per_task(lambda sample: sample.switches),
        "peak_bytes": median([sample.peak_bytes for sample in samples]),
        "output_bytes": output,
        "output_bytes_expected": None if output is None else tasks * workload.bytes_per_task,
    }


def median(figures, scale=1.0):
    known = [figure for figure in figures if figure is not None]
    return statistics.median(known) * scale if known else None


def number(figure, digits):
    return "-" if figure is None else f"{figure:,.{digits}f}"


def processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
