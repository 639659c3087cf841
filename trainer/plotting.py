"""What the plots of all reports share: their colours, plain axes, intervals of shares, PNG."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, PREDICTED, OBSERVED = "#26303a", "#8a94a0", "#1f6fb4", "#d1582b"


def wilson(share: np.ndarray, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % score interval of a share (Wilson 1927)."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = np.sqrt(z2 * (share * (1 - share) / cases + z2 / (4 * cases**2))) / (1 + z2 / cases)
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def with_interval(
    axes: Axes, x: np.ndarray, share: np.ndarray, cases: np.ndarray, label: str
) -> None:
    """Draw shares of so many cases as points with their 95 % intervals."""
    low, high = wilson(share, cases)
    axes.errorbar(
        x,
        share,
        yerr=np.stack([share - low, high - share]),
        fmt="o",
        markersize=5,
        color=OBSERVED,
        ecolor=OBSERVED,
        elinewidth=1,
        label=label,
        zorder=3,
    )


def plain_number(value: float, _: int | None = None) -> str:
    """A number of an axis, with commas and without needless digits."""
    return f"{value:,g}"


def plain(*panels: Axes) -> None:
    """Leave out what an axis does not need."""
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(colors=INK, labelsize=8)


def png(figure: Figure) -> bytes:
    """The figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()
