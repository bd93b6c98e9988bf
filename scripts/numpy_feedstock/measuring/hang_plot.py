"""The plot of the hang matrix: an SVG that is readable on a light and on a dark page."""

from collections.abc import Iterator
from typing import Any

from .measurements import HangMatrix, HangRow

LAYER_AS_BUILT = "as built"
_LIBRARIES = {"mkl": "MKL", "openblas": "OpenBLAS"}

# replaces the colours of GitHub's light page by those of its dark page
_TEXT, _TEXT_ON_DARK = "#1f2328", "#e6edf3"
_DARK_PAGE = (
    f'<style>@media (prefers-color-scheme: dark) {{ [fill="{_TEXT}"] '
    f"{{ fill: {_TEXT_ON_DARK} }} }}</style>"
)
# white text is readable on each of them, and so is each of them on white and on black
_COLOURS = {"no import hung": "#2f6fb3", "some hung": "#8f6400", "all hung": "#c0392b"}
_PANELS = {
    ("control", "race"): "unpatched, the race left alone",
    ("control", "late"): "unpatched, main thread late",
    ("package", "race"): "the package, the race left alone",
    ("package", "late"): "the package, main thread late",
}


def pairs(result: HangMatrix) -> Iterator[tuple[HangRow, HangRow]]:
    """Yield each control with the package of the same cell and glibc."""
    controls = [row for row in result.rows if row.kind == "control"]
    packages = [row for row in result.rows if row.kind == "package"]
    return zip(controls, packages, strict=True)


def layers(result: HangMatrix) -> list[tuple[str, str]]:
    """Return the pairs of BLAS and threading layer, in the order of the rows."""
    return list(dict.fromkeys((row.blas, row.layer) for row in result.rows))


def label(blas: str, layer: str) -> str:
    """Return the words for a flavour ("mkl-2026") and its threading layer."""
    library, _, version = blas.partition("-")
    name = f"{_LIBRARIES[library]} {version}".strip()
    if layer == LAYER_AS_BUILT:
        return name
    return f"{name}, {layer}"


def draw(result: HangMatrix) -> str:
    """Return the SVG. The same result gives the same text, byte for byte."""
    # imported here: 30 MB of native code that only this function needs
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(_specification(result))
    head, separator, rest = svg.partition(">")
    return head + separator + _DARK_PAGE + rest + "\n"


def _specification(result: HangMatrix) -> dict[str, Any]:
    """Return the plot in the language of Vega-Lite: four panels, a rectangle for each cell."""
    fill = {
        "field": "outcome",
        "type": "nominal",
        "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())},
        "legend": {"title": None, "orient": "bottom", "symbolType": "square"},
    }
    names = [label(*each) for each in layers(result)]
    cell = {
        "width": 150,
        "height": 26 * len(names),
        "encoding": {
            "x": {"field": "threads", "type": "ordinal", "title": "threads"},
            "y": {"field": "blas", "type": "nominal", "sort": names, "title": None},
        },
        "layer": [
            {"mark": {"type": "rect", "cornerRadius": 2}, "encoding": {"fill": fill}},
            {
                "mark": {"type": "text", "fill": "white", "fontSize": 11},
                "encoding": {"text": {"field": "share", "type": "nominal"}},
            },
        ],
    }
    column = {
        "field": "panel",
        "type": "nominal",
        "sort": list(_PANELS.values()),
        "header": {"title": None},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": "Imports of numpy inside dlopen that hung, of those that were tried",
        "data": {"values": list(_cells(result))},
        "facet": {"column": column},
        "spec": cell,
        "config": _config(),
    }


def _config() -> dict[str, Any]:
    axis = {"domain": False, "ticks": False, "labelColor": _TEXT, "titleColor": _TEXT}
    return {
        "background": None,
        "view": {"stroke": None},
        "axis": {**axis, "labelAngle": 0, "grid": False},
        "scale": {"bandPaddingInner": 0.06},
        "title": {"color": _TEXT, "anchor": "start"},
        "header": {"labelColor": _TEXT},
        "legend": {"labelColor": _TEXT},
    }


def _cells(result: HangMatrix) -> Iterator[dict[str, object]]:
    """Yield a record for each panel, BLAS and number of threads. It has all glibcs together."""
    for (kind, how), panel in _PANELS.items():
        shares: dict[tuple[str, int], tuple[int, int]] = {}
        for row in result.rows:
            if row.kind == kind:
                hangs, trials = row.hangs_in_race if how == "race" else row.hangs_main_late
                place = label(row.blas, row.layer), row.threads
                before = shares.get(place, (0, 0))
                shares[place] = before[0] + hangs, before[1] + trials
        for (blas, threads), (hangs, trials) in shares.items():
            yield {
                "panel": panel,
                "blas": blas,
                "threads": threads,
                "share": f"{hangs} of {trials}",
                "outcome": _outcome(hangs, trials),
            }


def _outcome(hangs: int, trials: int) -> str:
    none, some, every = _COLOURS
    if hangs == 0:
        return none
    if hangs < trials:
        return some
    return every
