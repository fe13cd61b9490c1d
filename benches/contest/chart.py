"""A chart of rates."""


def draw(report, path):
    """Draws the rates of the first workload."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: smaller, and in the font of whoever reads.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers"})
    import matplotlib.pyplot as plt

    workload = report.workloads[0]
    results = sorted(report.of(workload), key=lambda of: of["tasks_per_second"])
    names = [of["tool"] for of in results]
    medians = [of["tasks_per_second"] for of in results]
    spread = [
        [of["tasks_per_second"] - of["tasks_per_second_lowest"] for of in results],
        [of["tasks_per_second_highest"] - of["tasks_per_second"] for of in results],
    ]
    fig, axes = plt.subplots(figsize=(7, 0.6 + 0.45 * len(names)))
    colors = ["#b5482a" if name.startswith("run") else "#8a8a8a" for name in names]
    axes.barh(names, medians, xerr=spread, color=colors, height=0.6, ecolor="#444444")
    for at, value in enumerate(medians):
        axes.text(max(medians) * 0.01, at, f"{value:.0f}", va="center", color="white", fontweight="bold")
    rounds = len(report.rounds[workload.name])
    axes.set_xlabel(f"`{workload.name}` tasks per second, {report.jobs} at a time (median and range of {rounds} rounds)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})
