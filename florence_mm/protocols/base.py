"""Interface of evaluation protocols, and the data sets that they read."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

#: Kinds of protocols, in the order of the table.
GROUPS = (
    'zero-shot',
    'linear-probe',
    'fine-tuning',
    'few-shot',
    'retrieval',
    'detection',
    'vqa',
    'video',
)


#: Figures of a set that is not complete: how many images are there, and how many it officially has.
PRESENT, OFFICIAL = 'present_images', 'official_images'
#: End of a sentence on a set that is not complete.
OR_PARTIAL = ', or evaluate the part that is there with --allow-partial'


class LoadedLike(typing.Protocol):
    """Model with all its weights, in evaluation mode on its device, and the test pipeline of its config.

    Attributes:
        model: the model.
        cfg: the config that it was built from.
        pipeline: the pipeline of the config's test data; None if the config has none.
        device: the device of the model.
    """

    model: nn.Module
    cfg: Config
    pipeline: Any
    device: torch.device


class Protocol(typing.Protocol):
    """Evaluation protocol: one model on one data set by one published procedure.

    Protocols are frozen dataclasses. Their fields are the settings: together with the checkpoint and the data they
    decide the figures, and a result is kept until one of the three changes.

    Attributes:
        name: unique, ``GROUP/...``, as in ``zero-shot/food101``.
        group: one of :data:`GROUPS`.
        metric: key of the figure that stands in the table, one of those that :meth:`run` returns.
        paper: the paper's figure in percent, as printed (:mod:`florence_mm.protocols.paper`); None if there is none.
    """

    name: str
    group: str
    metric: str
    paper: float | None

    def missing(self, data_root: str | Path) -> str | None:
        """Say in one sentence what to download and where to put it; None if the data are there."""

    def reads(self, data_root: str | Path) -> Sequence[Path]:
        """List the files and folders that decide the figures; a result is kept while they do not change."""

    def run(self, model: LoadedLike, data_root: str | Path, out_dir: str | Path, **opts: Any) -> dict[str, float]:
        """Evaluate a model.

        Args:
            model: the model, which must leave as it came.
            data_root: folder of all data sets.
            out_dir: folder of this protocol, for caches, predictions and drawings; a killed evaluation finds there
                what it had written.
            **opts: ``batch_size`` and ``num_workers``, which change no figure beyond rounding (None: the protocol's
                own). A protocol takes others by name and ignores those that it has no use for.

        Returns:
            figures by name, 0 to 1 where they are fractions.

        Raises:
            UsageError: the model is of a kind that the protocol cannot evaluate.
            DataError: a file of the data set is unusable.
        """


@dataclass(frozen=True)
class DataSource:
    """Published data set: where it comes from, and the layout in which it is read.

    Args:
        title: its name, as in "Food-101".
        page: its official page.
        layout: files and folders below the data root that must be there, as in ``food101/images``.
        prepare: command that makes some of them from the published files; None if it is read as published.
    """

    title: str
    page: str
    layout: tuple[str, ...]
    prepare: str | None = None

    def paths(self, data_root: str | Path) -> list[Path]:
        """List the files and folders of the layout."""
        return [Path(data_root) / name for name in self.layout]

    def missing(self, data_root: str | Path) -> str | None:
        """Say in one sentence what to download and where to put it; None if all of the layout is there."""
        absent = [str(path) for path in self.paths(data_root) if not path.exists()]
        if not absent:
            return None
        there = f'{" and ".join(absent)} {"exists" if len(absent) == 1 else "exist"}'
        then = f', then run: {self.prepare.format(data=data_root)}' if self.prepare else ''
        return f'{self.title} is not there: download it from {self.page} so that {there}{then}'

    def write(self, data_root: str | Path) -> None:
        """Write the data where florence_mm makes them itself; published ones are only downloaded by their users."""


@dataclass(frozen=True)
class EmbeddedSource(DataSource):
    """Data set that florence_mm draws itself, the same on every machine, so that it is never missing.

    Args:
        make: writes the data below a data root, or repairs them.
    """

    make: Callable[[Path], object] = Path

    def missing(self, data_root: str | Path) -> str | None:
        """Return None: the data are written before they are read."""
        return None

    def write(self, data_root: str | Path) -> None:
        """Write the data where they are missing or damaged."""
        self.make(Path(data_root))


@dataclass(frozen=True)
class Entry:
    """Row of a suite: a protocol, and the model that it evaluates.

    Args:
        protocol: the protocol.
        config: config file of the model, as in ``florence_mm::dynamic_head/NAME.py``; None: the evaluated two towers.
        trained: whether the model of ``config`` is trained for this protocol, and so has a checkpoint of its own;
            otherwise it takes the checkpoint of the two towers.
        training: config that trains it, if not ``config``.
        variables: environment variables that the configs read.
        cost: rough time, in any unit that all entries of a suite share, for the estimate of the time left.
    """

    protocol: Protocol
    config: str | None = None
    trained: bool = False
    training: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    cost: float = 1.0


@typing.runtime_checkable
class Preparable(typing.Protocol):
    """Protocol whose data florence_mm itself makes."""

    def prepare(self, data_root: str | Path) -> None:
        """Write the data where they are missing."""


@typing.runtime_checkable
class Partible(typing.Protocol):
    """Protocol that can evaluate a part of its set, if it is asked to."""

    def partial(self) -> typing.Self:
        """Return this protocol for what is there of its set; its figures say how much that is."""


def percent(figures: Mapping[str, float], metric: str) -> float:
    """Convert a figure of :meth:`Protocol.run` to the percent of the paper's tables."""
    return 100 * float(figures[metric])
