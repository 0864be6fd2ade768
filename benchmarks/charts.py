"""Charts for a page that may be white or dark: no background, and colours that both show. Text stays text, so that they
are small. Without matplotlib there are none."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .contestants import Entrant
from .records import Group, Record, groups, middle, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#7d8590"  # four to one beside white and beside GitHub's dark grey
COLOURS = {
    "ours": "#e8590c",
    "raw": INK,
    "obstore": "#3b82f6",
    "obstore unsigned": "#0e9fc2",
    "opendal": "#2f9e44",
    "opendal atomic": "#2f9e44",
    "aiofiles": "#ae3ec9",
    "aioboto3": "#ae3ec9",
    "fsspec": "#b58900",
    "s3fs": "#b58900",
}
MARKS = {"ours": "D", "raw": "|", "obstore": "o", "obstore unsigned": "o", "opendal": "s", "opendal atomic": "P"}
DASHES = ("-", "--", ":")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",  # names of its parts that do not change from run to run
    "font.size": 9,
    "font.family": "sans-serif",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "grid.color": INK,
    "grid.alpha": 0.25,
}
ROW, TOP = 0.22, 1.1  # inches
LEAST_SPAN = 30  # from the lowest to the highest of an axis, so that noise is not drawn large
SMALLEST = 0.01  # on an axis that is logarithmic


def beside_the_best(records: Sequence[Record], entrants: Mapping[str, Mapping[str, Entrant]]) -> str | None:
    """For each place and workload, how many times as good as the best peer everybody was."""
    panels = [
        (place, _ratios([record for record in records if record.place == place], entrants[place]))
        for place in dict.fromkeys(record.place for record in records)
    ]
    return _dots(panels, "times as good as the best peer of the round (right is better)", line=1)


def figures(records: Sequence[Record], unit: str, label: str) -> str | None:
    """For each place and workload, everybody's median in one unit."""
    chosen = [record for record in records if record.unit == unit]
    rows: dict[str, dict[str, float]] = {}
    for record in chosen:
        line = [one for one in chosen if (one.place, one.workload) == (record.place, record.workload)]
        value = middle(line, record.contestant)
        rows.setdefault(f"{record.workload}, {record.place}", {})[record.contestant] = max(value or 0, SMALLEST)
    return _dots([("", rows)], label)


def curves(records: Sequence[Record]) -> str | None:
    """A panel for each workload, with a line for each contestant and place."""
    names = list(dict.fromkeys(record.workload for record in records))
    return _drawn(lambda figure: _draw_curves(figure, records, names), (9.5, 2.4 * -(-len(names) // 3) + 0.5))


def _ratios(records: Sequence[Record], entrants: Mapping[str, Entrant]) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for group in groups(entrants, {record.contestant for record in records}):
        for workload in dict.fromkeys(record.workload for record in records if record.contestant == group.ours):
            line = _first_unit([record for record in records if record.workload == workload])
            found = {name: ratio(line, name, group.peers) for name in group.names}
            label = f"{workload}, {group.title}" if group.title else workload
            rows[label] = {_colour_name(name, group): one.middle for name, one in found.items() if one}
    return rows


def _colour_name(name: str, group: Group) -> str:
    """What is durable is called as what is not: its row says it."""
    return "ours" if name == group.ours else "raw" if name in group.raw else name


def _first_unit(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.unit == records[0].unit]


def _dots(panels: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], label: str, line: float = 0) -> str | None:
    panels = [(title, rows) for title, rows in panels if rows]
    if not panels:
        return None
    height = ROW * max(len(rows) for _, rows in panels) + TOP

    def draw(figure: Figure) -> None:
        for number, (axes, (title, rows)) in enumerate(zip(_axes(figure, len(panels)), panels, strict=True)):
            _draw_dots(axes, rows, line)
            axes.set_title(title)
            if number == 0:
                figure.supxlabel(label, fontsize=9, color=INK)
        _legend(figure)

    return _drawn(draw, (4.6 * max(len(panels), 1.5), height))


def _draw_dots(axes: Axes, rows: Mapping[str, Mapping[str, float]], line: float) -> None:
    for place, values in enumerate(reversed(rows.values())):
        for name, value in reversed(values.items()):  # ours comes first, and so lies on top
            shown = name.removesuffix(" durable")
            axes.plot(
                value, place, MARKS.get(shown, "^"), color=COLOURS.get(shown, INK), label=shown, linestyle="none",
                fillstyle="none" if shown != name else "full", markersize=6, alpha=0.9,
            )  # fmt: skip
    axes.set_xscale("log")
    _in_numbers(axes.xaxis)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=True)
    if line:
        axes.axvline(line, color=INK, linewidth=1)
    _plain(axes)


def _draw_curves(figure: Figure, records: Sequence[Record], names: Sequence[str]) -> None:
    places = list(dict.fromkeys(record.place for record in records))
    for number, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // 3), 3, number + 1)
        lines = _first_unit([record for record in records if record.workload == name])
        for contestant, place in dict.fromkeys((record.contestant, record.place) for record in lines):
            mine = [record for record in lines if (record.contestant, record.place) == (contestant, place)]
            steps = sorted({record.x or 0 for record in mine})
            values = [
                middle([record for record in mine if (record.x or 0) == x], contestant) or SMALLEST for x in steps
            ]
            axes.plot(
                steps, values, color=COLOURS.get(contestant, INK), linestyle=DASHES[places.index(place) % len(DASHES)],
                marker=".", label=f"{contestant}, {place}",
            )  # fmt: skip
        axes.set_xscale("symlog" if name.endswith("bytes") else "log", **_linear_below(name))
        axes.set_yscale("log")
        lowest, highest = axes.get_ylim()
        axes.set_ylim(lowest / 2, max(highest * 2, lowest * LEAST_SPAN))
        _in_numbers(axes.xaxis)
        _in_numbers(axes.yaxis)
        axes.set_title(f"{name.rpartition(', ')[0]} ({lines[0].unit}) by {name.rpartition(', ')[2]}", fontsize=9)
        axes.grid(visible=True)
        _plain(axes)
    _legend(figure)


def _linear_below(name: str) -> dict[str, float]:
    return {"linthresh": 1_024} if name.endswith("bytes") else {}


def _in_numbers(axis: Axis) -> None:
    """0.1, 1, 1k instead of powers, and no ticks between them."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axis.set_major_formatter(lambda value, _: _text(value))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _text(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


def _axes(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure) -> None:
    """One for all panels, each name once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    known = [name for name in COLOURS if name in found]
    columns = int(figure.get_figwidth() / 1.3)
    order = [*known, *(name for name in found if name not in known)]
    figure.legend([found[name] for name in order], order, loc="outside upper center", ncols=min(len(order), columns))


def _drawn(draw: Any, size: tuple[float, float]) -> str | None:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()
