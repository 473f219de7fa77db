"""Results as a picture and a page: one PNG, one HTML that shows it above its tables. Needs matplotlib: `.[plots]`."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Points = Sequence[Sequence[float]]  # of x and y


class Panel(NamedTuple):
    """One diagram: its lines by name."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    scale: str = "linear"  # of y


class Table(NamedTuple):
    title: str
    header: Sequence[str]
    rows: Iterable[Sequence[Any]]


def write(folder: Path, name: str, title: str, text: str, panels: Sequence[Panel], tables: Sequence[Table]) -> None:
    """`folder`/`name`.png and .html."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw(folder / f"{name}.png", panels)
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(text)}</p>", f'<img src="{name}.png" alt="">']
    parts += [_table(table) for table in tables]
    style = "body{font:15px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}img{max-width:100%}"
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>{''.join(parts)}"
    )
    (folder / f"{name}.html").write_text(page + "\n")


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in table.rows]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{body}</table>"


def _draw(path: Path, panels: Sequence[Panel]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(6.5 * len(panels), 5), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for name, points in panel.lines.items():
            axis.plot([point[0] for point in points], [point[1] for point in points], label=name)
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, yscale=panel.scale)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
