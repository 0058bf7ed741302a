"""Drawings of a lane's figures as SVG, legible on light and dark pages, with no library.

What is drawn follows from the figures themselves: those whose names differ in one number become
lines ("1 client", "8 clients", "64 clients"), details ``q1``, ``q2``, … become bars of ratios, and
rates become bars beside their yardsticks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Figure, amount

#: Colours that differ for colour-blind eyes, too (after Okabe and Ito): on white, on near-black.
COLOURS = (
    *(("#0072b2", "#56b4e9"), ("#d55e00", "#f0883e"), ("#009e73", "#2fc79a")),
    *(("#b0508c", "#e6a0cc"), ("#8a6d00", "#e3c54a")),
)
OURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b")
OURS = "K2 Flight"
WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 78, 18, 66, 44
FONT = "font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px"


def _coloured(scheme: int) -> str:
    rules = (
        f".c{number}{{fill:{pair[scheme]}}}polyline.c{number}{{fill:none;stroke:{pair[scheme]}}}"
        for number, pair in enumerate(COLOURS)
    )
    return "\n".join(rules)


STYLE = f"""
text{{{FONT};fill:#24292f}}.title{{font-size:15px;font-weight:600}}
.grid{{stroke:#888;stroke-opacity:.35}}.axis{{stroke:#888}}.page{{fill:#fff}}
.goal{{stroke:#888;stroke-width:1.5;stroke-dasharray:5 4}}polyline{{stroke-width:2.5}}
{_coloured(0)}
@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.page{{fill:#0d1117}}
{_coloured(1)}}}
"""
#: A number before what it counts.
COUNTED = re.compile(
    r"\b(\d[\d,.]*(?: ?[kM])?) (client|data file|file|snapshot|segment|table|live row)s?\b"
)


@dataclass(frozen=True)
class Series:
    """What one line or one colour of bars shows; None where there is nothing at a place."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """One drawing.

    Attributes:
        title: what it shows.
        unit: of the values; "" for ratios.
        places: labels along the x axis.
        series: one value per place each.
        lines: lines over a logarithmic axis, or bars.
        goal: the bars begin here, up and down a logarithmic axis; None: at zero.
    """

    title: str
    unit: str
    places: Sequence[str]
    series: Sequence[Series]
    lines: bool = False
    goal: float | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether equal ratios are equal distances."""
        return self.lines or self.goal is not None


def drawings(lane: str, figures: Sequence[Figure]) -> dict[str, tuple[str, str]]:
    """File name (no ending) → title and SVG, of all that a lane's figures show."""
    charts = [*_lines(figures), *_queries(figures), *_rates(lane, figures)]
    names = [f"{lane}-{number}" for number in range(1, len(charts) + 1)]
    return {name: (chart.title, svg(chart)) for name, chart in zip(names, charts, strict=True)}


# --- what is drawn ------------------------------------------------------------------------------


def _lines(figures: Iterable[Figure]) -> Iterator[Chart]:
    families: dict[str, dict[str, list[Figure]]] = {}
    for figure in figures:
        found = COUNTED.search(figure.name)
        if found and figure.value is not None and "p99" not in figure.name:
            start, end = found.span()
            stem = f"{figure.name[:start]}{{}} {found[2]}s{figure.name[end:]}"
            families.setdefault(stem, {}).setdefault(found[1], []).append(figure)
    for stem, places in families.items():
        if len(places) >= 3:
            yield _family(stem, places)


def _family(stem: str, places: dict[str, list[Figure]]) -> Chart:
    own = Series(OURS, [group[0].value for group in places.values()])
    yardsticks = dict.fromkeys(
        each.yardstick
        for group in places.values()
        for each in group
        if each.yardstick and each.against is not None
    )
    others = [
        Series(
            name,
            [
                next((each.against for each in group if each.yardstick == name), None)
                for group in places.values()
            ],
        )
        for name in yardsticks
    ]
    unit = next(iter(places.values()))[0].unit
    title = stem.replace("{}", "…").replace("`", "")
    return Chart(title, unit, list(places), [own, *others], lines=True)


def _queries(figures: Iterable[Figure]) -> Iterator[Chart]:
    """Bars of the details q1, q2, …: how often the yardstick's time each query takes."""
    titles: dict[str, list[Figure]] = {}
    for figure in figures:
        if any(re.fullmatch(r"q\d+", key) for key in figure.detail):
            titles.setdefault(figure.name.split(",")[0], []).append(figure)
    for title, group in titles.items():
        keys = sorted({key for each in group for key in each.detail}, key=lambda key: int(key[1:]))
        series = [
            Series(each.yardstick.removeprefix("the ").split(" ")[0], values)
            for each in group
            for values in [[each.detail.get(key) for key in keys]]
        ]
        name = f"{title}: our time ÷ theirs, query by query (below 1 we are faster)"
        yield Chart(name, "", [key.upper() for key in keys], series, goal=1.0)


def _rates(lane: str, figures: Iterable[Figure]) -> Iterator[Chart]:
    rates = [each for each in figures if each.unit == "rows/s" and each.value and each.against]
    if not rates:
        return
    places = [each.name.replace("`", "") for each in rates]
    ours = Series(OURS, [each.value for each in rates])
    theirs = Series("yardstick", [each.against for each in rates])
    named = [
        f"{place}\nbeside {each.yardstick.replace('`', '')}"
        for place, each in zip(places, rates, strict=True)
    ]
    yield Chart(f"{lane}: rows per second (more is better)", "rows/s", named, [ours, theirs])


# --- how it is drawn ----------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """The chart as an SVG document of its own."""
    body = list(_lying(chart) if _long(chart.places) else _standing(chart))
    height = TOP + BOTTOM + _lying_height(chart) if _long(chart.places) else HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n<title>{escape(chart.title)}</title>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>\n'
        + "\n".join([*_heading(chart), *body])
        + "\n</svg>\n"
    )


def _heading(chart: Chart) -> Iterator[str]:
    yield text(LEFT - 60, 24, chart.title, kind="title", width=WIDTH - 36)
    at = float(LEFT - 60)
    for number, series in enumerate(chart.series):
        yield f'<rect x="{at:.0f}" y="38" width="12" height="12" rx="2" class="{_colour(number)}"/>'
        yield text(at + 17, 48, series.name)
        at += 34 + 6.6 * len(series.name)


def _standing(chart: Chart) -> Iterator[str]:
    """Lines, or bars upright: places along the x axis."""
    floor, ceiling, ticks = _axis(chart)
    plot_height = HEIGHT - TOP - BOTTOM

    def height_of(value: float) -> float:
        share = (
            math.log(value / floor) / math.log(ceiling / floor)
            if chart.logarithmic
            else (value - floor) / (ceiling - floor)
        )
        return TOP + plot_height * (1 - share)

    for tick in ticks:
        y = height_of(tick)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield text(LEFT - 8, y + 4, amount(tick, chart.unit).strip(), anchor="end")
    step = (WIDTH - LEFT - RIGHT) / len(chart.places)
    for number, place in enumerate(chart.places):
        yield text(LEFT + step * (number + 0.5), HEIGHT - BOTTOM + 20, place, anchor="middle")
    draw = _polylines if chart.lines else _bars
    yield from draw(chart, step, height_of)
    if chart.goal is not None:
        y = height_of(chart.goal)
        yield f'<line class="goal" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    bottom = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>'


def _polylines(chart: Chart, step: float, height_of: Callable[[float], float]) -> Iterator[str]:
    for number, series in enumerate(chart.series):
        points = [
            (LEFT + step * (place + 0.5), height_of(value))
            for place, value in enumerate(series.values)
            if value
        ]
        shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        colour = _colour(number)
        yield f'<polyline points="{shape}" class="{colour}"/>'
        for x, y in points:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{colour}"/>'


def _bars(chart: Chart, step: float, height_of: Callable[[float], float]) -> Iterator[str]:
    width = step * 0.78 / len(chart.series)
    start = height_of(chart.goal) if chart.goal is not None else HEIGHT - BOTTOM
    for number, series in enumerate(chart.series):
        for place, value in enumerate(series.values):
            if value is None:
                continue
            x = LEFT + step * (place + 0.11) + width * number
            top, bottom = sorted((height_of(value), start))
            yield (
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.92:.1f}" '
                f'height="{bottom - top:.1f}" rx="1.5" class="{_colour(number)}"/>'
            )


def _lying(chart: Chart) -> Iterator[str]:
    """Bars to the right, where the places' names need a line of their own."""
    most = max(value for each in chart.series for value in each.values if value is not None)
    reach, row = WIDTH - 36 - 110, _row_height(chart)
    for place, name in enumerate(chart.places):
        top = TOP + place * row
        yield text(LEFT - 60, top + 14, name.replace("\n", " · "), width=WIDTH - 36)
        for number, series in enumerate(chart.series):
            value = series.values[place]
            if value is None:
                continue
            y, length = top + 22 + 17 * number, max(1.0, reach * value / most)
            yield (
                f'<rect x="{LEFT - 60}" y="{y}" width="{length:.1f}" height="13" rx="1.5" '
                f'class="{_colour(number)}"/>'
            )
            yield text(LEFT - 54 + length, y + 11, amount(value, chart.unit))


def _row_height(chart: Chart) -> int:
    return 34 + 17 * len(chart.series)


def _lying_height(chart: Chart) -> int:
    return _row_height(chart) * len(chart.places) - 30


def _long(places: Sequence[str]) -> bool:
    return max(map(len, places)) > 24


def _axis(chart: Chart) -> tuple[float, float, list[float]]:
    """The axis' ends and its ticks, at round values."""
    values = [value for each in chart.series for value in each.values if value]
    if chart.goal is not None:
        values.append(chart.goal)
    low, high = min(values), max(values)
    if not chart.logarithmic:
        step = next(each for each in _rounds(high / 6) if each * 6 >= high)
        count = math.ceil(high / step)
        return 0.0, step * count, [step * number for number in range(count + 1)]
    floor = next(each for each in reversed(list(_rounds(low / 10))) if each <= low)
    ceiling = next(each for each in _rounds(high) if each > high)
    ticks = [each for each in _rounds(floor, ceiling / floor) if floor <= each <= ceiling * 1.001]
    if len(ticks) > 7:
        ticks = [each for each in ticks if f"{each:e}".startswith("1.")]
    return floor, ceiling, ticks


def _rounds(start: float, reach: float = 100.0) -> Iterator[float]:
    """1, 2, 5 times powers of ten, from at most ``start`` to at least ``reach`` times that."""
    power = math.floor(math.log10(start))
    while 10.0**power <= start * reach * 10:
        yield from (digit * 10.0**power for digit in (1, 2, 5))
        power += 1


def text(
    x: float, y: float, words: str, *, kind: str = "", anchor: str = "start", width: int = 0
) -> str:
    """A line of text; squeezed where it would be wider than ``width`` pixels."""
    squeezed = width and len(words) * (8.2 if kind else 6.4) > width
    fit = f' textLength="{width}" lengthAdjust="spacingAndGlyphs"' if squeezed else ""
    style = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}{fit}>{escape(words)}</text>'
    )


def _colour(number: int) -> str:
    return f"c{number % len(COLOURS)}"
