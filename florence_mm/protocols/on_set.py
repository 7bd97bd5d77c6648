"""What the protocols on a classification set share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from .paper import paper_figure
from .sets import ClassificationSet


@dataclass(frozen=True)
class OnSet:
    """Base of protocols on one classification set.

    Args:
        data: the set.
    """

    data: ClassificationSet
    group: ClassVar[str]

    @property
    def name(self) -> str:
        """``GROUP/SET``."""
        return f'{self.group}/{self.data.name}'

    @property
    def metric(self) -> str:
        """Key of the figure in the table."""
        return self.data.metric

    @property
    def paper(self) -> float | None:
        """The paper's figure in percent; None if there is none."""
        return paper_figure(self.name, self.metric)

    def missing(self, data_root: str | Path) -> str | None:
        """Say in one sentence what to download and where to put it; None if the data are there."""
        return self.data.missing(data_root)

    def reads(self, data_root: str | Path) -> Sequence[Path]:
        """List the files and folders that decide the figures."""
        return self.data.reads(data_root)

    def partial(self) -> Self:
        """Return this protocol for what is there of its set; :func:`part_of` is among its figures."""
        return replace(self, data=replace(self.data, allow_partial=True))

    def prepare(self, data_root: str | Path) -> None:
        """Write the data where florence_mm makes them itself."""
        for source in self.data.sources:
            source.write(data_root)
