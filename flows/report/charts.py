"""The line charts of the report as SVG text, to be placed inline: the page's style sheet colours them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (5.2, 2.9)
POINTS = 200
"""Most points of one curve."""
COLOURS = {"base": "#2b6cd4", "novel": "#c9610f", "all": "#4a5361", "soft": "#5c6676", "rule": "#e2e6ec"}
"""Name of a colour in report.css -> what matplotlib draws it with until `_styled` puts the name in."""
SESSION_LETTERS = 14
_METADATA = ("Creator", "Date", "Format", "Type")


def over_sessions(names: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str) -> str:
    """A chart of scores in points (0-100) after each session.

    Args:
        names: of the sessions, in order.
        series: group (base, novel, all) -> one value per session; None leaves a gap.
        unit: what the values are, for the axis.
    """

    def draw(axes: Axes) -> None:
        for group, values in series.items():
            known = [value for value in values if value is not None]
            if known:
                label = f"{group} {known[-1]:.1f}"
                axes.plot(range(len(names)), _gaps(values), marker="o", color=COLOURS[group], label=label)
        axes.set_xticks(range(len(names)), [_short(name) for name in names])
        if len(names) > 4:
            for text in axes.get_xticklabels():
                text.set(rotation=30, ha="right")
        axes.set(xlabel="session", ylabel=f"{unit} (points)", ylim=(0, 100))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)

    return _chart(draw)


def over_steps(steps: Sequence[float], values: Sequence[float | None], unit: str, top: float | None = None) -> str:
    """A chart of one quantity over training steps, thinned to about POINTS points; `top` fixes the upper end."""
    stride = max(1, len(steps) // POINTS)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1} - {-1})

    def draw(axes: Axes) -> None:
        axes.plot([steps[at] for at in kept], _gaps([values[at] for at in kept]), color=COLOURS["base"])
        axes.set(xlabel="training step", ylabel=unit, ylim=(0, top))

    return _chart(draw)


def over_false_names(naming: Mapping[str, Any]) -> str:
    """The share of objects that are rightly named over false names per 1,000 images, for every score; the operating
    point is marked with its intervals.

    Args:
        naming: `samif.evaluate.model.Naming` as JSON.
    """
    point = naming["rates"]
    most = 2.0 * max(naming["limit"] or 0.0, point["false_names"]["high"])

    def draw(axes: Axes) -> None:
        shown = [at for at in naming["curve"] if at["named"] is not None]
        false = [at["false_names"]["value"] for at in shown]
        named = [100.0 * at["named"]["value"] for at in shown]
        axes.plot(false, named, color=COLOURS["all"])
        if point["named"] is not None:
            x, y = point["false_names"], {end: 100.0 * value for end, value in point["named"].items()}
            # the ends that earlier releases wrote may be rounded to the other side of the value
            reach = [[[max(0.0, at["value"] - at["low"])], [max(0.0, at["high"] - at["value"])]] for at in (x, y)]
            axes.errorbar(x["value"], y["value"], reach[1], reach[0], fmt="o", color=COLOURS["base"], capsize=3)
        if naming["limit"] is not None:
            axes.axvline(naming["limit"], color=COLOURS["novel"], linestyle="--", linewidth=1.0)
        axes.set(xlabel="false names per 1,000 images", ylabel="rightly named (%)", xlim=(0, most), ylim=(0, 100))

    return _chart(draw)


def over_shots(shots: Sequence[int], right: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """The share of rightly named objects (0..1) over the images of a class, with the range of the draws."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        axes.fill_between(shots, [100.0 * v for v in low], [100.0 * v for v in high], color=COLOURS["base"], alpha=0.15)
        axes.plot(shots, [100.0 * value for value in right], marker="o", color=COLOURS["base"])
        axes.set(xlabel="images of the class", ylabel="rightly named (%)", ylim=(0, 102))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _chart(draw)


def _chart(draw: Callable[[Axes], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "samif", "font.family": "sans-serif", "font.size": 9,
        "lines.linewidth": 1.8, "lines.markersize": 5,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), COLOURS["soft"]),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), COLOURS["rule"]),
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _inline(file.getvalue())


def _inline(svg: str) -> str:
    """Without what only a file of its own needs, and in the colours of the page, which has a dark style too."""
    text = svg[svg.index("<svg") :]
    text = re.sub(
        r'<style .*?</style>|<clipPath .*?</clipPath>| clip-path="[^"]*"| xmlns(:xlink)?="[^"]*"',
        "",
        text,
        flags=re.DOTALL,
    )
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', text, count=1)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _short(name: str) -> str:
    return name if len(name) <= SESSION_LETTERS else name[: SESSION_LETTERS - 1] + "…"
