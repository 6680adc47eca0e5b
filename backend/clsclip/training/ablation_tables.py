"""Tables 1 to 3 of the paper: what they compare, and how results are set beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final, Literal, get_args

from pydantic import Field

from clsclip.config import Settings
from clsclip.errors import InvalidConfigError
from clsclip.model.config import GuidanceKind

TableName = Literal["1", "2", "3"]
"""The tables, by their numbers in the paper."""

ALL_TABLES: Final[tuple[TableName, ...]] = get_args(TableName)

_LAST: Final = (9, 10, 11)
"""The last layers of the paper's encoder, which has 12."""


@dataclass(frozen=True)
class Variant:
    """One way to guide the image.

    Attributes
    ----------
    guidance : str
    layers : tuple of int
        Replaced layers, as the paper numbers those of its encoder; empty where none is replaced.
    """

    guidance: GuidanceKind
    layers: tuple[int, ...] = ()

    def replaced(self, depth: int) -> tuple[int, ...]:
        """The layers to replace in an encoder of ``depth`` layers.

        9, 10, 11 are the last three of the paper's 12, and stand for the last three of any other
        encoder (ours); the other sets are taken as they are.

        Raises
        ------
        InvalidConfigError
            If the encoder has too few layers.
        """
        if self.layers == _LAST:
            return tuple(range(depth - len(_LAST), depth))
        if self.layers and self.layers[-1] >= depth:
            raise InvalidConfigError(
                f"Layers {_listed(self.layers)} cannot be replaced in a visual encoder of {depth} "
                "layers. Leave that table out (--table), or take a deeper CLIP."
            )
        return self.layers

    def name(self, depth: int) -> str:
        """Name of a run directory, such as "channel" or "replace-2-3-4"."""
        return "-".join([self.guidance, *map(str, self.replaced(depth))])


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    label : str
    variant : Variant
    miou, fb_iou : float
        What the paper reports, in per cent.
    """

    label: str
    variant: Variant
    miou: float
    fb_iou: float


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes
    ----------
    title : str
    column : str
        Heading of the labels.
    rows : tuple of Row
        The paper's own choice, with which the others are compared, is the last one.
    """

    title: str
    column: str
    rows: tuple[Row, ...]


_OURS: Final = Variant("replace", (2, 3, 4))

TABLES: Final[Mapping[TableName, Table]] = {
    "1": Table(
        "Ways of using the text [CLS]",
        "way",
        (
            Row("channel attention", Variant("channel"), 68.3, 78.6),
            Row("spatial attention", Variant("spatial"), 60.5, 73.8),
            Row("replace [CLS]", _OURS, 71.5, 80.6),
        ),
    ),
    "2": Table(
        "Encoder update",
        "update",
        (
            Row("VPT", Variant("prompts"), 64.7, 76.3),
            Row("replace [CLS]", _OURS, 71.5, 80.6),
        ),
    ),
    "3": Table(
        "Layers whose [CLS] is replaced",
        "layers",
        (
            Row("0, 1, 2", Variant("replace", (0, 1, 2)), 66.9, 77.9),
            Row("2, 5, 8", Variant("replace", (2, 5, 8)), 67.0, 79.0),
            Row("9, 10, 11", Variant("replace", _LAST), 59.8, 74.4),
            Row("2, 3, 4", _OURS, 71.5, 80.6),
        ),
    ),
}
"""By number."""


class Measured(Settings):
    """Figures of one run on a held-out part of the data; IoU in [0, 1]."""

    miou: float
    fb_iou: float


class Spread(Settings):
    """Mean and standard deviation over the seeds; IoU in [0, 1]."""

    miou: float
    miou_spread: float | None = Field(description="None with a single seed.")
    fb_iou: float
    fb_iou_spread: float | None = Field(description="None with a single seed.")

    @classmethod
    def of(cls, figures: Sequence[Measured]) -> Spread:
        """Of the figures of some seeds, at least one."""
        miou, fb_iou = [each.miou for each in figures], [each.fb_iou for each in figures]
        return cls(
            miou=mean(miou), miou_spread=_deviation(miou), fb_iou=mean(fb_iou),
            fb_iou_spread=_deviation(fb_iou),
        )  # fmt: skip


class VariantResult(Settings):
    """What was measured of one variant."""

    guidance: GuidanceKind
    replaced_layers: tuple[int, ...]
    weights: int = Field(description="Number of trained weights.")
    seeds: dict[int, dict[str, Measured]] = Field(
        description="By seed and held-out part of the data."
    )
    summary: dict[str, Spread] = Field(description="By held-out part, over the seeds.")


def required_variants(names: Sequence[TableName]) -> tuple[Variant, ...]:
    """The variants of some tables, each once, in the order of the tables."""
    return tuple(dict.fromkeys(row.variant for name in names for row in TABLES[name].rows))


def table_markdown(
    name: TableName, results: Mapping[str, VariantResult], depth: int, parts: Sequence[str]
) -> str:
    """A table in Markdown, and which differences are larger than the spread over the seeds.

    Parameters
    ----------
    name : str
    results : mapping of str to VariantResult
        By :meth:`Variant.name`; variants that are not measured yet have dashes.
    depth : int
        Layers of the visual encoder.
    parts : sequence of str
        Held-out parts, as columns.
    """
    table = TABLES[name]
    heads = [table.column, "trained weights", "seeds"]
    heads += [f"{part}: {figure}" for part in parts for figure in ("mIoU", "FB-IoU")]
    heads.append("paper: mIoU / FB-IoU")
    lines = [f"**Table {name}. {table.title}**", "", _line(heads)]
    lines.append(_line(["---", *["---:"] * (len(heads) - 1)]))
    for row in table.rows:
        result = results.get(row.variant.name(depth))
        cells = [_label(row, depth)]
        cells += ["-", "0"] if result is None else [f"{result.weights:,}", str(len(result.seeds))]
        for part in parts:
            spread = None if result is None else result.summary.get(part)
            cells += ["-", "-"] if spread is None else _cells(spread)
        lines.append(_line([*cells, f"{row.miou:.1f} / {row.fb_iou:.1f}"]))
    ours = results.get(table.rows[-1].variant.name(depth))
    compared = []
    for part in parts:
        verdicts = [
            f"{_label(row, depth)} {_verdict(theirs.summary.get(part), ours.summary.get(part))}"
            for row in table.rows[:-1]
            if ours is not None and (theirs := results.get(row.variant.name(depth))) is not None
        ]
        compared += [f"- {part}: {'; '.join(verdicts)}."] if verdicts else []
    if compared:
        lines += ["", f"mIoU beside that of {table.rows[-1].label}:", "", *compared]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _label(row: Row, depth: int) -> str:
    replaced = row.variant.replaced(depth)
    if replaced == row.variant.layers:
        return row.label
    return f"{row.label} (here {_listed(replaced)}, the last of {depth})"


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def _cells(spread: Spread) -> list[str]:
    figures = ((spread.miou, spread.miou_spread), (spread.fb_iou, spread.fb_iou_spread))
    return [
        f"{100 * value:.1f}" if deviation is None else f"{100 * value:.1f} ± {100 * deviation:.1f}"
        for value, deviation in figures
    ]


def _verdict(theirs: Spread | None, ours: Spread | None) -> str:
    """How a variant compares with the paper's choice."""
    if theirs is None or ours is None:
        return "not measured yet"
    difference = 100 * (theirs.miou - ours.miou)
    if theirs.miou_spread is None or ours.miou_spread is None:
        return f"{difference:+.1f} (one seed, no spread)"
    within = abs(difference) <= 100 * max(theirs.miou_spread, ours.miou_spread)
    return f"{difference:+.1f} ({'within' if within else 'beyond'} the spread)"


def _deviation(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
