"""The grid of the report: a row per check, a column per image, and a row for each group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tasks.artifacts.checks import Outcome, Validation
from tasks.ci.problems import ordered_groups, worst
from tasks.ci.report.images import GROUP_CHARS, Shown
from tasks.ci.report.texts import NAME_CHARS
from tasks.ci.text import one_line


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of one check, or of one group, in one image; outcome None: it has none."""

    outcome: Outcome | None
    target: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check in all images."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One group in all images, and its checks; `calm`: nothing in it needs a look."""

    name: str
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    calm: bool


def blocks_of(validations: Sequence[Validation], shown: list[list[Shown]]) -> list[Block]:
    """The grid: a row per check and a column per image, by groups."""
    return [
        block_of(group, [cells_of(group, *pair) for pair in zip(validations, shown, strict=True)])
        for group in ordered_groups(validations)
    ]


def cells_of(
    group: str, validation: Validation, checks: Sequence[Shown]
) -> dict[tuple[str, int], Cell]:
    """The cells of one group in one image; a check that comes twice has two."""
    cells: dict[tuple[str, int], Cell] = {}
    for check, item in zip(validation.checks, checks, strict=True):
        if check.group == group:
            nth = sum(name == check.name for name, _ in cells)
            cells[check.name, nth] = Cell(outcome=check.outcome, target=item.id)
    return cells


def block_of(group: str, columns: Sequence[dict[tuple[str, int], Cell]]) -> Block:
    """One group of the grid from its columns."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = tuple(
        Row(
            name=one_line(key[0], NAME_CHARS),
            cells=tuple(column.get(key, Cell(outcome=None)) for column in columns),
        )
        for key in keys
    )
    whole = tuple(whole_cell(column.values()) for column in columns)
    calm = not any(cell.outcome in ("failed", "error") for cell in whole)
    return Block(name=one_line(group, GROUP_CHARS), cells=whole, rows=rows, calm=calm)


def whole_cell(cells: Collection[Cell]) -> Cell:
    """A group in one image: its worst outcome, how many have it, and the first of them."""
    worst_one = worst(cell.outcome for cell in cells if cell.outcome)
    if worst_one is None:
        return Cell(outcome=None)
    those = [cell for cell in cells if cell.outcome == worst_one]
    return Cell(outcome=worst_one, target=those[0].target, text=str(len(those)))
