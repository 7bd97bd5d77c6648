"""Engines of stage B: the same steps over the columns of all sidecars, in DuckDB or in Daft.

A plan holds the rows that are still kept and those it has dropped. Each choice it makes is one of integers without
ties, the smallest id or the smallest pair of ``sampling`` and id, so that every engine, thread and machine makes the
same one. Floating-point sums, ``any_value``, hash functions of an engine and its order of rows decide nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..options import StageBOptions
from .duckdb import DuckDBPlan

#: Columns of a sidecar that a plan reads.
COLUMNS = ('id', 'phash', 'label', 'query', 'words', 'sampling', 'score', 'drop')


class Plan(Protocol):
    """The steps of stage B, each of which drops rows."""

    def read(self, sidecars: Sequence[Path]) -> None:
        """Take the rows that stage A has kept; one whose score is NaN or infinite is dropped."""

    def drop_low_scores(self, min_score: float) -> int:
        """Drop rows whose score is below ``min_score``; return the number of rows that have no score."""

    def find_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each hash once, uint64, and the smallest id that has it, in any order."""

    def drop_pictures(self, hashes: np.ndarray, reason: str) -> None:
        """Drop all rows whose hash is one of ``hashes``."""

    def keep_first(self, hashes: np.ndarray, stands_for: np.ndarray, by_text: bool, reason: str) -> None:
        """Keep one row of each picture, that with the smallest id, or with ``by_text`` one of each picture and label.

        Args:
            hashes: those that count as another one.
            stands_for: that other one.
        """

    def drop_ids(self, ids: np.ndarray, reason: str) -> None:
        """Drop the rows with these ids."""

    def keep_at_most(self, column: str, most: int, reason: str) -> None:
        """Keep ``most`` rows of each value of a column, those smallest in ``sampling``, then id; nulls stay."""

    def kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return id, sampling and words of the rows that are kept, in any order."""

    def dropped(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the rows that were dropped, and their reasons' places in ``REASONS``, in any order."""

    def close(self) -> None:
        """Give back memory and temporary files."""


def make_plan(options: StageBOptions, folder: Path) -> Plan:
    """Start the engine that the options name.

    Args:
        options: see :class:`~florence_mm.curation.options.StageBOptions`.
        folder: for temporary files.

    Raises:
        UsageError: the engine is not installed.
    """
    if options.engine == 'duckdb':
        return DuckDBPlan(folder, options.memory, options.threads)
    from .daft import DaftPlan

    return DaftPlan(on_ray=options.engine == 'daft-ray')
