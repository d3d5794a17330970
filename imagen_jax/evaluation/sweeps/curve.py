"""The picture of a sweep: how far samples are from real images, against how well they show what they should.

Where only one of the two is known, it is drawn over the setting that is varied.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagen_jax.evaluation.base import Measure

# That fit below the axis beside each other.
_MOST_LABEL_CHARACTERS = 60
_AXIS, _LINE, _FRONT = "#444444", "#9aa7b4", "#1f5fa8"


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (alignment, distance) no other beats in both, by rising alignment: more alignment and less distance win."""
    return [
        index
        for index in sorted(range(len(points)), key=lambda index: points[index])
        if not any(
            other != points[index] and other[0] >= points[index][0] and other[1] <= points[index][1] for other in points
        )
    ]


def axes_of(measures: Sequence[Mapping[str, Measure]]) -> tuple[str, str]:
    """Chooses (alignment, distance) to draw: the first distance, and the alignment that tells points apart best.

    That is the one that varies most for its uncertainty. Either is "" where there is none of its kind; what is there is
    then drawn over the points alone.
    """
    first = measures[0]
    distances = [name for name, measure in first.items() if measure.kind == "distance"]
    alignments = [name for name, measure in first.items() if measure.kind == "alignment"]

    def told_apart(name: str) -> float:
        values = [each[name] for each in measures]
        widths = [(m.high or m.value) - (m.low or m.value) for m in values]
        return (max(m.value for m in values) - min(m.value for m in values)) / (sum(widths) / len(widths) + 1e-9)

    return max(alignments, key=told_apart, default=""), distances[0] if distances else ""


def draw(
    measures: Sequence[Mapping[str, Measure]],
    labels: Sequence[str],
    *,
    alignment: str,
    distance: str,
    title: str,
    varied: str,
) -> dict[str, bytes]:
    """Draws a dot per point in the table's order, with 95% intervals: {"png": ..., "svg": ...}.

    Args:
      measures: of each point, by name.
      labels: of each point, the values of what is varied.
      alignment, distance: the names to draw; more and less is better. Where one is "", the other is drawn over the
        varied setting, on a scale if all labels are numbers.
      title: above the picture.
      varied: what the labels are values of.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if alignment and distance:
        _draw_both(axes, measures, labels, alignment=alignment, distance=distance)
        legend = f"labels: {varied}"
    else:
        _draw_one(axes, [point[alignment or distance] for point in measures], labels, varied=varied)
        better = "more is better" if alignment else "less is better"
        axes.set_ylabel(f"{alignment or distance} ({better})")
        legend = ""
    axes.set_title(title, fontsize=10)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, title=legend or None, title_fontsize=8, alignment="left")
    pictures = {}
    with matplotlib.rc_context({"svg.hashsalt": "imagen_jax", "svg.fonttype": "none"}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            pictures[kind] = buffer.getvalue()
    return pictures


def _draw_both(
    axes: Any, measures: Sequence[Mapping[str, Measure]], labels: Sequence[str], *, alignment: str, distance: str
) -> None:
    """Distance over alignment, with what no other point beats."""
    x, y = ([point[name] for point in measures] for name in (alignment, distance))
    xs, ys = [m.value for m in x], [m.value for m in y]
    axes.errorbar(
        xs, ys, xerr=_error(x), yerr=_error(y), color=_LINE, ecolor="#cfd6dd", elinewidth=1, linewidth=1, zorder=1
    )
    front = pareto(list(zip(xs, ys, strict=True)))
    axes.plot(
        [xs[i] for i in front], [ys[i] for i in front], "-", color=_FRONT, linewidth=2, label="Pareto front", zorder=2
    )
    axes.scatter(xs, ys, s=36, color=[_FRONT if i in front else _LINE for i in range(len(xs))], zorder=3)
    for label, at_x, at_y in zip(labels, xs, ys, strict=True):
        axes.annotate(label, (at_x, at_y), xytext=(6, 6), textcoords="offset points", fontsize=9, color=_AXIS)
    _draw_references(axes.axhline, y[0])
    _draw_references(axes.axvline, x[0])
    axes.set_xlabel(f"{alignment} (more is better)")
    axes.set_ylabel(f"{distance} (less is better)")
    axes.margins(0.1)
    if min(ys) >= 0:
        axes.set_ylim(bottom=0.0)


def _draw_one(axes: Any, measures: Sequence[Measure], labels: Sequence[str], *, varied: str) -> None:
    """One number over the varied setting."""
    ys = [measure.value for measure in measures]
    numbers = _numbers(labels)
    xs = numbers or list(range(len(labels)))
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    axes.errorbar(
        [xs[i] for i in order],
        [ys[i] for i in order],
        yerr=_error([measures[i] for i in order]),
        color=_FRONT,
        ecolor="#cfd6dd",
        elinewidth=1,
        linewidth=1.5,
        marker="o",
    )
    if numbers is None:
        turned = max(map(len, labels)) * len(labels) > _MOST_LABEL_CHARACTERS
        axes.set_xticks(xs, labels, fontsize=8, rotation=30 if turned else 0, ha="right" if turned else "center")
    _draw_references(axes.axhline, measures[0])
    axes.set_xlabel(varied or "point")
    axes.margins(0.1)
    if min(ys) >= 0 and measures[0].kind == "distance":
        axes.set_ylim(bottom=0.0)


def _draw_references(line: Callable[..., Any], measure: Measure) -> None:
    """A line where real images are, of a distance or an alignment."""
    if measure.null is not None:
        label = f"null: two halves of the real images, {measure.null:.4g}"
        line(measure.null, linestyle="--", linewidth=1, color="#b0562f", label=label)
    if measure.real is not None:
        line(measure.real, linestyle=":", linewidth=1.2, color="#3a7d44", label=f"real images, {measure.real:.4g}")


def _numbers(labels: Sequence[str]) -> list[float] | None:
    """The labels as numbers that are all different, or None where they aren't."""
    try:
        found = [float(label) for label in labels]
    except ValueError:
        return None
    return found if len(set(found)) == len(found) and all(map(math.isfinite, found)) else None


def _error(measures: Sequence[Measure]) -> list[list[float]] | None:
    if any(measure.low is None or measure.high is None for measure in measures):
        return None
    pairs = [(m.value - (m.low or 0.0), (m.high or 0.0) - m.value) for m in measures]
    return [[max(0.0, low) for low, _ in pairs], [max(0.0, high) for _, high in pairs]]
