"""The picture of a sweep: how far samples are from real images against how well they show what they should."""

import io
from collections.abc import Mapping, Sequence

from imagen_jax.evaluation.base import Measure

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


def axes_of(measures: Sequence[Mapping[str, Measure]]) -> tuple[str, str] | None:
    """(alignment, distance) to draw: the first distance, and the alignment that varies most for its uncertainty.

    None where there is no distance or no alignment.
    """
    first = measures[0]
    distances = [name for name, measure in first.items() if measure.kind == "distance"]
    alignments = [name for name, measure in first.items() if measure.kind == "alignment"]
    if not distances or not alignments:
        return None

    def told_apart(name: str) -> float:
        values = [each[name] for each in measures]
        widths = [(m.high or m.value) - (m.low or m.value) for m in values]
        return (max(m.value for m in values) - min(m.value for m in values)) / (sum(widths) / len(widths) + 1e-9)

    return max(alignments, key=told_apart), distances[0]


def draw(
    measures: Sequence[Mapping[str, Measure]],
    labels: Sequence[str],
    *,
    alignment: str,
    distance: str,
    title: str,
    varied: str,
) -> dict[str, bytes]:
    """{"png": ..., "svg": ...}: a dot a point in the table's order, with 95% intervals.

    Args:
      measures: of each point, by name.
      alignment, distance: the names to draw; more and less is better.
      varied: what the labels are values of.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = ([point[name] for point in measures] for name in (alignment, distance))
    figure = Figure(figsize=(7.2, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
    null = y[0].null
    if null is not None:
        axes.axhline(
            null, linestyle="--", linewidth=1, color="#b0562f", label=f"null: two halves of the real images, {null:.4g}"
        )
    real = x[0].real
    if real is not None:
        axes.axvline(real, linestyle=":", linewidth=1.2, color="#3a7d44", label=f"real images, {real:.4g}")
    axes.set_xlabel(f"{alignment} (more is better)")
    axes.set_ylabel(f"{distance} (less is better)")
    axes.set_title(title, fontsize=10)
    axes.margins(0.1)
    if min(ys) >= 0:
        axes.set_ylim(bottom=0.0)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, title=f"labels: {varied}", title_fontsize=8, alignment="left")
    pictures = {}
    with matplotlib.rc_context({"svg.hashsalt": "imagen_jax", "svg.fonttype": "none"}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            pictures[kind] = buffer.getvalue()
    return pictures


def _error(measures: Sequence[Measure]) -> list[list[float]] | None:
    if any(measure.low is None or measure.high is None for measure in measures):
        return None
    pairs = [(m.value - (m.low or 0.0), (m.high or 0.0) - m.value) for m in measures]
    return [[max(0.0, low) for low, _ in pairs], [max(0.0, high) for _, high in pairs]]
