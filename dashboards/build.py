#!/usr/bin/env python3
"""Writes the Grafana dashboards beside it (`grafana/*.json`) from the descriptions below; nothing but Python is needed.

    dashboards/build.py            write
    dashboards/build.py --check    end with 1 when a written file differs; changes nothing

Every selector gets the matchers of the variables `job` and `instance`; `[R]` is Grafana's rate interval. A test runs
every query against a real Prometheus, so a panel here needs no further check by hand.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
RUNBOOK = "https://github.com/mitosis-run/mitosis/blob/main/dashboards/README.md"
BOARDS = {"overview": "Overview", "ipc": "IPC and polling", "machine": "Machine", "coordinator": "Coordinator"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GOOD, BAD, WARN = "green", "red", "orange"


def expand(expr):
    """Adds the matchers of the variables to every selector."""
    def selector(match):
        own = [match[3]] if match[3] else []
        return "%s{%s}" % (match[1], ", ".join(['job=~"$job"', 'instance=~"$instance"'] + own))

    expr = re.sub(r"\b(mitosis_\w+)(\{([^}]*)\})?", selector, expr)
    return expr.replace("[R]", "[$__rate_interval]")


def panel(title, kind, unit, queries, text, *, w=6, h=7, steps=None, runbook=None, stacked=False, most=None, colors=None):
    """One panel; `queries` are (expression, legend), `steps` thresholds as (from, color), `colors` by legend."""
    steps = [{"value": value, "color": color} for value, color in steps or [(None, GOOD)]]
    custom = {"fillOpacity": 10, "showPoints": "never"} if kind == "timeseries" else {}
    if stacked:
        custom.update(fillOpacity=40, stacking={"mode": "normal", "group": "A"})
    if kind == "timeseries" and len(steps) > 1:
        custom["thresholdsStyle"] = {"mode": "dashed"}
    defaults = {"unit": unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}, "min": 0}
    if most is not None:
        defaults["max"] = most
    if kind == "stat" and unit == "short":
        # Prometheus extrapolates an increase, and 6.07 deaths are 6.
        defaults["decimals"] = 0
    overrides = [{"matcher": {"id": "byName", "options": name},
                  "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]}
                 for name, color in (colors or {}).items()]
    options = {
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                 "colorMode": "background", "graphMode": "area", "textMode": "auto", "justifyMode": "auto",
                 "orientation": "auto"},
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                       "tooltip": {"mode": "multi", "sort": "desc"}},
        "heatmap": {"calculate": False, "yAxis": {"unit": unit, "axisPlacement": "left"},
                    "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
                    "cellGap": 1, "legend": {"show": True}, "tooltip": {"show": True, "yHistogram": False}},
    }[kind]
    targets = [
        {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "expr": expand(expr), "legendFormat": legend,
         "format": "heatmap" if kind == "heatmap" else "time_series", "instant": False, "range": True}
        for at, (expr, legend) in enumerate(queries)
    ]
    links = [{"title": "What to do", "url": f"{RUNBOOK}#{runbook}", "targetBlank": True}] if runbook else []
    return {"title": title, "type": kind, "description": text, "datasource": DATASOURCE, "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": overrides}, "options": options, "links": links,
            "gridPos": {"w": w, "h": h}}


def stat(title, unit, queries, text, **more):
    more.setdefault("w", 4)
    more.setdefault("h", 4)
    return panel(title, "stat", unit, queries, text, **more)


def graph(title, unit, queries, text, **more):
    more.setdefault("w", 8)
    return panel(title, "timeseries", unit, queries, text, **more)


def heat(title, metric, text, **more):
    more.setdefault("w", 12)
    name, _, labels = metric.partition("{")
    selector = "%s_bucket%s" % (name, "{" + labels if labels else "")
    return panel(title, "heatmap", "s", [(f"sum by (le) (rate({selector}[R]))", "{{le}}")], text, **more)


def quantile(q, metric, by="le"):
    name, _, labels = metric.partition("{")
    selector = "%s_bucket%s" % (name, "{" + labels if labels else "")
    return f"histogram_quantile({q}, sum by ({by}) (rate({selector}[R])))"


def mean_busy(metric):
    """How many slots were in a phase on average: seconds of it per second."""
    return f"sum(rate({metric}_sum[R]))"


OVERVIEW = [
    ("At a glance", [
        stat("Accounting gap", "short", [("sum(mitosis_coordinator_accounting_gap)", "gap")],
             "Tasks accepted less finished less in flight, from one transaction of the store. Anything but 0 means that a "
             "task was lost or counted twice.", steps=[(None, BAD), (0, GOOD), (1, BAD)], w=3, runbook="accounting-gap"),
        stat("Ready tasks", "short", [('sum(mitosis_coordinator_tasks{state="ready"})', "ready")],
             "Tasks that wait for a free slot.", w=2),
        stat("Oldest ready", "s", [("max(mitosis_coordinator_oldest_ready_seconds)", "age")],
             "How long the oldest task that could be claimed has waited. Grows while nobody claims.",
             steps=[(None, GOOD), (300, WARN), (1800, BAD)], w=3, runbook="stuck-queue"),
        stat("Start latency p99", "s", [(quantile(0.99, "mitosis_task_start_seconds"), "p99")],
             "From the hand-over to a worker until the spawn call returned. The objective is 10 ms.",
             steps=[(None, GOOD), (0.01, WARN), (0.1, BAD)], w=3, runbook="start-latency"),
        stat("Failures in 1 h, by reason", "short",
             [('sum(increase(mitosis_coordinator_tasks_finished_total{outcome="failed"}[1h]))', "all"),
              ('sum by (reason) (increase(mitosis_coordinator_tasks_finished_total{outcome="failed"}[1h])) > 0',
               "{{reason}}")],
             "Tasks that failed, all and by reason.", w=4, steps=[(None, GOOD), (1, WARN)]),
        stat("Busy slots", "percentunit", [("avg(mitosis_worker_busy)", "busy")],
             "Share of worker slots that execute a task at this moment.", w=3, most=1),
        stat("Time to finish", "s",
             [("sum(mitosis_coordinator_tasks) / sum(rate(mitosis_coordinator_tasks_finished_total[R]))", "left")],
             "Tasks in flight divided by the present rate of ends.", w=3),
        stat("Managers lost in 1 h", "short",
             [('sum(increase(mitosis_coordinator_sessions_ended_total{reason="lost"}[1h]))', "lost")],
             "Sessions of managers that broke off without a goodbye.", steps=[(None, GOOD), (1, WARN), (10, BAD)], w=3,
             runbook="lost-managers"),
    ]),
    ("Where the time goes", [
        graph("Slots by phase", "short", [
            (mean_busy("mitosis_task_start_seconds"), "hand-over and spawn"),
            (mean_busy("mitosis_task_run_seconds"), "run"),
            (mean_busy("mitosis_task_report_seconds"), "reap and report"),
            ("clamp_min(count(mitosis_worker_busy) - (%s) - (%s) - (%s), 0)" % tuple(
                mean_busy(f"mitosis_task_{phase}_seconds") for phase in ("start", "run", "report")), "idle"),
        ], "How many slots were in each phase on average. A task counts when its phase ends, so long tasks appear late.",
            stacked=True, colors={"idle": "#b0b0b0"}),
        graph("Spins that found work", "percentunit", [
            ("sum by (role) (rate(mitosis_ipc_spin_hits_total[R])) / "
             "clamp_min(sum by (role) (rate(mitosis_ipc_spins_total[R])), 1e-9)", "{{role}}"),
        ], "Share of a poller's idle turns that were rewarded by work. Near 0 with cores burnt: lower the spin budget.",
            w=5, runbook="tuning"),
        graph("Cores burnt by our own processes", "short", [
            ("sum(rate(mitosis_process_cpu_seconds_total[R]))", "coordinator and managers"),
            ("sum(rate(mitosis_worker_cpu_seconds_total[R]))", "workers"),
        ], "CPU seconds per second outside of tasks.", w=5),
        graph("Spool age", "s", [("max by (instance) (mitosis_manager_spool_oldest_seconds)", "{{instance}}")],
              "Age of the oldest report that a manager could not commit.", w=3, steps=[(None, GOOD), (60, WARN)],
              runbook="spool-growing"),
        stat("Lost wake-ups", "short", [("sum(mitosis_ipc_lost_wakeups_total)", "lost")],
             "Bounded waits that ran out and then found work. Must stay 0.", steps=[(None, GOOD), (1, BAD)], w=3, h=7,
             runbook="lost-wake-ups"),
    ]),
    ("Tasks", [
        graph("Rate", "ops", [
            ("sum(rate(mitosis_coordinator_tasks_accepted_total[R]))", "accepted"),
            ("sum by (outcome) (rate(mitosis_coordinator_tasks_finished_total[R]))", "{{outcome}}"),
        ], "Tasks accepted and ended per second."),
        graph("Errors by reason", "ops",
              [('sum by (reason) (rate(mitosis_coordinator_tasks_finished_total{outcome!="completed"}[R]))', "{{reason}}")],
              "Tasks that failed or were cancelled, per second."),
        graph("Tasks by state", "short", [("sum by (state) (mitosis_coordinator_tasks)", "{{state}}")],
              "Tasks that have not ended.", stacked=True),
        graph("Latency chain, p50", "s", [
            (quantile(0.5, f"mitosis_task_{link}_seconds"), text) for link, text in (
                ("queue_wait", "accepted to claimed"), ("buffer_wait", "claimed to handed over"),
                ("start", "handed over to spawned"), ("run", "spawned to exited"),
                ("report", "exited to reported"), ("commit", "exited to committed"))
        ], "The median of each step of a task's life.", w=12),
        graph("Latency chain, p99", "s", [
            (quantile(0.99, f"mitosis_task_{link}_seconds"), text) for link, text in (
                ("queue_wait", "accepted to claimed"), ("buffer_wait", "claimed to handed over"),
                ("start", "handed over to spawned"), ("run", "spawned to exited"),
                ("report", "exited to reported"), ("commit", "exited to committed"))
        ], "The slowest hundredth of each step.", w=12),
    ]),
]

IPC = [
    ("Latency", [
        heat("Round trip of fetches", 'mitosis_ipc_round_trip_seconds{operation="fetch"}',
             "What a worker waits for an answer, time parked for want of tasks excluded."),
        heat("Round trip of reports", 'mitosis_ipc_round_trip_seconds{operation="report"}',
             "What a worker waits for an acknowledgement."),
        graph("Round trip p50 and p99", "s", [
            (quantile(0.5, "mitosis_ipc_round_trip_seconds", "le, operation"), "{{operation}} p50"),
            (quantile(0.99, "mitosis_ipc_round_trip_seconds", "le, operation"), "{{operation}} p99"),
        ], "The goal is below 1 ms at p50.", steps=[(None, GOOD), (0.001, WARN)], runbook="ipc-latency"),
        graph("Service time p99", "s", [
            (quantile(0.99, "mitosis_ipc_service_seconds", "le, operation"), "{{operation}}"),
        ], "From arrival at the manager's poller to the answer."),
        graph("Parked", "short", [("sum by (instance) (mitosis_ipc_parked_requests)", "parked {{instance}}")],
              "Fetch requests that wait because there is nothing to do: idle workers."),
    ]),
    ("Polling", [
        graph("CPU against latency", "short", [
            ("sum(rate(mitosis_worker_cpu_seconds_total[R])) + sum(rate(mitosis_process_cpu_seconds_total[R]))",
             "cores burnt"),
            ("1000 * " + quantile(0.5, 'mitosis_ipc_round_trip_seconds{operation="fetch"}'), "fetch p50 in ms"),
        ], "What a poll strategy costs and brings, on one axis.", runbook="tuning"),
        graph("Wake-ups, spins, sleeps", "ops", [
            ("sum by (role) (rate(mitosis_ipc_wakeups_total[R]))", "wake-ups {{role}}"),
            ("sum by (role) (rate(mitosis_ipc_spins_total[R]))", "spins {{role}}"),
            ("sum by (role) (rate(mitosis_ipc_spin_hits_total[R]))", "spins that found work {{role}}"),
            ("sum by (role) (rate(mitosis_ipc_sleeps_total[R]))", "sleeps {{role}}"),
        ], "How pollers spend their turns. `event` shows sleeps alone, `busy` spins alone."),
        graph("Strategies in force", "short", [
            ("sum by (role, strategy) (mitosis_ipc_pollers) > 0", "{{role}} {{strategy}}"),
        ], "Pollers by strategy.", w=4),
        graph("Spin budget", "s", [("max by (role) (mitosis_ipc_spin_budget_seconds)", "{{role}}")],
              "Longest budget of the adaptive pollers.", w=4),
        graph("Time parked p50", "s", [(quantile(0.5, "mitosis_ipc_parked_seconds"), "p50")],
              "How long a worker waited for a task.", w=6),
        stat("Lost wake-ups", "short", [("sum by (role) (mitosis_ipc_lost_wakeups_total)", "{{role}}")],
             "Bounded waits that ran out and then found work. Must stay 0.", steps=[(None, GOOD), (1, BAD)], w=6, h=7,
             runbook="lost-wake-ups"),
        graph("Requests", "ops", [("sum by (operation) (rate(mitosis_ipc_requests_total[R]))", "{{operation}}")],
              "Requests served.", w=6),
        graph("Refused frames", "ops", [("sum by (reason) (rate(mitosis_ipc_frames_refused_total[R]))", "{{reason}}")],
              "Frames that do not belong here. Must stay 0.", w=6, runbook="refused-frames"),
    ]),
    ("Per worker", [
        graph("CPU by worker", "short", [
            ('sum by (worker) (rate(mitosis_worker_cpu_seconds_total{worker=~"$worker"}[R]))', "{{worker}}"),
        ], "Cores that a worker's own process burns, its task excluded.", w=12),
        graph("Wake-ups by worker", "ops", [
            ('sum by (worker) (rate(mitosis_worker_wakeups_total{worker=~"$worker"}[R]))', "{{worker}}"),
        ], "An idle worker wakes at most once in 5 s.", w=12),
    ]),
]

MACHINE = [
    ("Workers", [
        stat("Workers ready", "short", [('sum(mitosis_manager_workers{state="ready"})', "ready")],
             "Workers that can take a task.", steps=[(None, BAD), (1, GOOD)], runbook="crash-loop"),
        stat("Running", "short", [("sum(mitosis_manager_running_tasks)", "running")], "Tasks in the hands of workers."),
        stat("Buffered", "short", [("sum(mitosis_manager_buffer_tasks)", "buffered")],
             "Tasks leased and waiting for a worker."),
        stat("Connected", "short", [("min(mitosis_manager_connected)", "connected")],
             "0 while some manager has no coordinator: it goes on with its buffer.", steps=[(None, BAD), (1, GOOD)],
             runbook="lost-managers"),
        stat("Strikes in 1 h", "short", [("sum(increase(mitosis_manager_strikes_total[1h]))", "strikes")],
             "Tasks whose worker died under them.", steps=[(None, GOOD), (1, WARN)], runbook="strikes"),
        stat("Spool", "short", [("sum(mitosis_manager_spool_reports)", "reports")],
             "Reports that are not committed.", steps=[(None, GOOD), (1000, WARN)], runbook="spool-growing"),
        graph("Workers by state", "short", [("sum by (state) (mitosis_manager_workers)", "{{state}}")],
              "Worker processes.", stacked=True),
        graph("Starts and exits", "ops", [
            ("sum(rate(mitosis_manager_worker_starts_total[R]))", "starts"),
            ("sum by (reason) (rate(mitosis_manager_worker_exits_total[R]))", "exit: {{reason}}"),
        ], "Restarts of workers. `asked` alone is normal.", runbook="crash-loop"),
        graph("Busy workers", "short", [('sum by (worker) (mitosis_worker_busy{worker=~"$worker"})', "{{worker}}")],
              "1 while a worker executes a task."),
        graph("Tasks by outcome", "ops", [("sum by (outcome) (rate(mitosis_manager_tasks_total[R]))", "{{outcome}}"),
                                          ("sum(rate(mitosis_manager_executions_total[R]))", "executions")],
              "Tasks that ended here. More executions than ends: something is repeated."),
        graph("Tasks by worker", "ops", [
            ('sum by (worker) (rate(mitosis_worker_tasks_total{worker=~"$worker"}[R]))', "{{worker}}")],
            "How the work is spread."),
        graph("Reports by verdict", "ops", [
            ("sum by (verdict) (rate(mitosis_manager_reports_total[R]))", "{{verdict}}"),
            ("sum(rate(mitosis_worker_report_retries_total[R]))", "sent again"),
        ], "What became of workers' reports.", runbook="stale-attempts"),
    ]),
    ("Room", [
        graph("CPU", "short", [
            ("sum by (instance) (rate(mitosis_process_cpu_seconds_total[R]))", "{{instance}}"),
            ("sum(rate(mitosis_worker_cpu_seconds_total[R]))", "workers"),
        ], "Cores that our own processes burn."),
        graph("Memory", "bytes", [
            ("sum by (instance) (mitosis_process_memory_bytes)", "{{instance}}"),
            ("sum(mitosis_manager_worker_memory_bytes)", "workers, shared pages counted for each"),
        ], "Resident memory."),
        graph("Spool", "bytes", [("sum by (instance) (mitosis_manager_spool_bytes)", "{{instance}}")],
              "Bytes of the spool's file.", runbook="spool-growing"),
        graph("Free storage", "percentunit", [
            ("min by (instance, place) (mitosis_storage_free_bytes / mitosis_storage_size_bytes)", "{{place}} {{instance}}"),
        ], "Free share of the file systems of the state directories and of shared memory.", most=1, w=12,
            runbook="running-out"),
        graph("Descriptors", "percentunit", [
            ("max by (instance) (mitosis_process_descriptors / mitosis_process_descriptors_limit)", "{{instance}}"),
        ], "Share of the permitted descriptors that is open.", most=1, w=12, steps=[(None, GOOD), (0.8, WARN)],
            runbook="running-out"),
    ]),
]

COORDINATOR = [
    ("Queue", [
        stat("Accounting gap", "short", [("sum(mitosis_coordinator_accounting_gap)", "gap")], "Must be 0.",
             steps=[(None, BAD), (0, GOOD), (1, BAD)], runbook="accounting-gap"),
        stat("Oldest ready", "s", [("max(mitosis_coordinator_oldest_ready_seconds)", "age")],
             "How long the oldest claimable task has waited.", steps=[(None, GOOD), (300, WARN), (1800, BAD)],
             runbook="stuck-queue"),
        stat("Sessions", "short", [("sum(mitosis_coordinator_sessions)", "sessions")], "WebSocket sessions of managers.",
             runbook="lost-managers"),
        stat("Stale reports", "short", [("sum(increase(mitosis_coordinator_stale_reports_total[1h]))", "1 h")],
             "Reports of attempts that had been given to somebody else.", steps=[(None, GOOD), (1, WARN)],
             runbook="stale-attempts"),
        stat("Store p99", "s", [(quantile(0.99, "mitosis_coordinator_store_seconds"), "p99")],
             "Of all transactions, waiting included.", steps=[(None, GOOD), (0.1, WARN), (1, BAD)], runbook="slow-store"),
        stat("Version", "short", [("sum by (version) (mitosis_build_info)", "{{version}}")], "Processes by version."),
        graph("Queue age", "s", [("max(mitosis_coordinator_oldest_ready_seconds)", "oldest ready"),
                                 (quantile(0.99, "mitosis_task_queue_wait_seconds"), "wait p99")],
              "How long tasks wait for a holder."),
        graph("Leases taken back", "ops", [("sum by (cause) (rate(mitosis_coordinator_leases_reclaimed_total[R]))", "{{cause}}")],
              "By cause. `expired`: a holder was silent for longer than its term.", runbook="lost-managers"),
        graph("Sessions", "short", [
            ("sum(mitosis_coordinator_sessions)", "open"),
            ("sum(increase(mitosis_manager_sessions_total[R]))", "opened"),
            ("sum by (reason) (increase(mitosis_coordinator_sessions_ended_total[R]))", "ended: {{reason}}"),
        ], "WebSocket sessions of managers."),
    ]),
    ("Store", [
        heat("Store transactions", "mitosis_coordinator_store_seconds", "Time of a transaction, waiting included."),
        graph("Store p99 by operation", "s", [
            (quantile(0.99, "mitosis_coordinator_store_seconds", "le, operation"), "{{operation}}")],
            "The slowest hundredth.", w=12, runbook="slow-store"),
        graph("Store transactions by operation", "ops", [
            ("sum by (operation) (rate(mitosis_coordinator_store_seconds_count[R]))", "{{operation}}")],
            "Transactions per second.", w=12),
        graph("Stale reports", "ops", [("sum(rate(mitosis_coordinator_stale_reports_total[R]))", "refused")],
              "Reports refused because a newer lease or an end exists.", w=12, runbook="stale-attempts"),
    ]),
    ("Endpoints", [
        graph("Requests by route", "ops", [
            ("sum by (route) (rate(mitosis_coordinator_http_requests_total[R])) > 0", "{{route}}")], "HTTP requests."),
        graph("Errors", "ops", [
            ('sum by (route, status) (rate(mitosis_coordinator_http_requests_total{status=~"4xx|5xx"}[R])) > 0',
             "{{status}} {{route}}")], "Refused and failed requests."),
        graph("Latency p99", "s", [(quantile(0.99, "mitosis_coordinator_http_seconds", "le, group"), "{{group}}")],
              "Long polls excluded."),
    ]),
]


def variable(name, label, query, datasource=DATASOURCE):
    return {"name": name, "label": label, "type": "query", "datasource": datasource, "query": query,
            "refresh": 2, "multi": True, "includeAll": True, "allValue": ".+", "sort": 3, "hide": 0,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [], "regex": ""}


def dashboard(name, rows):
    panels, y = [], 0
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y, x, tall = y + 1, 0, 0
        for one in members:
            grid = one["gridPos"]
            if x + grid["w"] > 24:
                x, y, tall = 0, y + tall, 0
            grid.update(x=x, y=y)
            x, tall = x + grid["w"], max(tall, grid["h"])
            panels.append(one)
        y += tall
    for number, one in enumerate(panels, 1):
        one["id"] = number
    links = [{"type": "link", "title": title, "url": f"/d/mitosis-{other}", "keepTime": True, "includeVars": True,
              "asDropdown": False, "targetBlank": False, "icon": "dashboard", "tags": [], "tooltip": ""}
             for other, title in BOARDS.items() if other != name]
    links.append({"type": "link", "title": "Guide", "url": RUNBOOK, "keepTime": False, "includeVars": False,
                  "asDropdown": False, "targetBlank": True, "icon": "doc", "tags": [], "tooltip": ""})
    variables = [
        {"name": "datasource", "label": "Data Source", "type": "datasource", "query": "prometheus", "hide": 0,
         "refresh": 1, "regex": "", "multi": False, "includeAll": False, "options": [],
         "current": {"selected": False, "text": "default", "value": "default"}},
        variable("job", "Job", "label_values(mitosis_build_info, job)"),
        variable("instance", "Instance", 'label_values(mitosis_build_info{job=~"$job"}, instance)'),
        variable("worker", "Worker",
                 'label_values(mitosis_worker_busy{job=~"$job", instance=~"$instance"}, worker)'),
    ]
    return {"uid": f"mitosis-{name}", "title": f"Mitosis / {BOARDS[name]}", "tags": ["mitosis"], "timezone": "browser",
            "schemaVersion": 39, "version": 1, "editable": False, "graphTooltip": 1, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "timepicker": {}, "annotations": {"list": []},
            "fiscalYearStartMonth": 0, "links": links, "templating": {"list": variables}, "panels": panels}


def main():
    check = "--check" in sys.argv[1:]
    rows = {"overview": OVERVIEW, "ipc": IPC, "machine": MACHINE, "coordinator": COORDINATOR}
    stale = []
    for name in BOARDS:
        path = HERE / "grafana" / f"{name}.json"
        text = json.dumps(dashboard(name, rows[name]), indent=1) + "\n"
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text)
    if stale:
        sys.exit(f"dashboards/build.py: not what it writes: {', '.join(stale)}; run it without --check")


if __name__ == "__main__":
    main()
