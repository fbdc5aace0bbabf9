"""The chart: how fast each server echoes, and what an idle connection costs it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import Measurements
from .rows import ROWS, SERVERS

OURS, OTHERS, TEXT = "#0c7c59", "#b8bec6", "#24292f"
LEFT_OUT = {"floor"}  # no WebSocket server


class Bar(NamedTuple):
    server: str
    length: float
    words: str


def draw(measurements: Measurements, file: Path) -> bool:
    """Writes the PNG, of what was measured of it. Returns False, and writes nothing, if that is nothing."""
    panels = [
        ("64 B echo, messages/s, picows = 1", _speed(measurements)),
        ("Memory of an idle connection, KiB", _memory(measurements)),
    ]
    panels = [(title, bars) for title, bars in panels if bars]
    if not panels:
        return False
    figure = Figure(figsize=(5.2 * len(panels), 4.4), facecolor="white")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (title, bars) in zip(axes[0], panels, strict=True):
        _panel(axis, title, bars)
    figure.tight_layout(w_pad=2)
    figure.savefig(file, dpi=160)
    return True


def _speed(measurements: Measurements) -> list[Bar]:
    bars = []
    for contender in ROWS["echo"].contenders:
        ratios = measurements.ratios("echo", contender.name, "picows", ROWS["echo"].value.key)
        if ratios and contender.server not in LEFT_OUT:
            bars.append(Bar(contender.server, median(ratios), f"{median(ratios):.2f}"))
    return sorted(bars, key=lambda bar: bar.length)


def _memory(measurements: Measurements) -> list[Bar]:
    bars = []
    for contender in ROWS["memory"].contenders:
        kib = measurements.median("memory", contender.name, ROWS["memory"].value.key)
        if kib is not None and contender.server not in LEFT_OUT:
            bars.append(Bar(contender.server, kib, f"{kib:.0f}"))
    return sorted(bars, key=lambda bar: bar.length, reverse=True)  # the best is on top, as beside


def _panel(axis: Axes, title: str, bars: list[Bar]) -> None:
    colours = [OURS if SERVERS[bar.server].build else OTHERS for bar in bars]
    labels = [SERVERS[bar.server].label for bar in bars]
    drawn = axis.barh(labels, [bar.length for bar in bars], color=colours, height=0.72)
    axis.bar_label(drawn, [bar.words for bar in bars], padding=4, color=TEXT, fontsize=11)
    axis.set_title(title, loc="right", fontsize=12, color=TEXT, pad=10)
    axis.margins(x=0.14, y=0.01)
    axis.tick_params(axis="y", length=0, labelsize=11, labelcolor=TEXT)
    axis.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color(OTHERS)
