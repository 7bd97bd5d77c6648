"""The models behind the tabs of the page, loaded when they are first used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from florence_mm import apis
from florence_mm.config.metafiles import list_models, model_entry
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.publishing import find_published
from florence_mm.utils.home import published_folders

from .tasks import TABS, Tab


class Choice(NamedTuple):
    """A model that a tab offers.

    Attributes:
        config: its config, or its name.
        checkpoint: its weights; None for those of the name.
    """

    config: str
    checkpoint: str | None = None

    @property
    def label(self) -> str:
        """Name on the page."""
        return Path(self.config).stem if self.checkpoint else self.config


class PageModels:
    """The models of each tab.

    Args:
        given: for the name of a tab, a model's name, or its config and checkpoint. A tab that is not named offers the
            models of its task whose weights are on this machine.
        device: see :class:`~florence_mm.apis.base.Inferencer`.
        index: an index made by ``florence-mm search``, for the tab of searches.
        pictures: without ``index``, a folder of pictures that is indexed when it is first searched.

    Raises:
        UsageError: a tab is given more than a config and a checkpoint.
    """

    def __init__(
        self,
        given: Mapping[str, Sequence[str]],
        device: str | None = None,
        index: str | Path | None = None,
        pictures: str | Path | None = None,
    ) -> None:
        self.device, self.index, self.pictures = device, index, pictures
        self.choices = {tab.name: _given(tab, given[tab.name]) if given.get(tab.name) else _found(tab) for tab in TABS}
        self._loaded: dict[tuple[str, Choice], Any] = {}
        self._lock = Lock()

    def get(self, tab: Tab, label: str | None) -> Any:
        """Return the inferencer of a tab's model, loaded at the first call.

        Raises:
            UsageError: the tab has no model of that name.
        """
        choice = next((one for one in self.choices[tab.name] if label in (None, one.label)), None)
        if choice is None:
            raise UsageError(
                f'there is no model for this tab; run make zoo, or start the page with --{tab.name} MODEL, such as '
                f'{", ".join(_names(tab)[:2])}'
            )
        with self._lock:
            key = (tab.inferencer, choice)
            if key not in self._loaded:
                loaded = getattr(apis, tab.inferencer)(choice.config, choice.checkpoint, self.device)
                if tab.name == 'search':
                    self._open_index(loaded, choice)
                self._loaded[key] = loaded
            return self._loaded[key]

    def _open_index(self, inferencer: Any, choice: Choice) -> None:
        if self.index is not None:
            inferencer.open(self.index)
            return
        if self.pictures is None:
            raise UsageError('there are no pictures to search; start the page with --index DIR')
        # beside the pictures, one for each model
        inferencer.index(self.pictures, Path(self.pictures).with_suffix(f'.{choice.label}'))


def _given(tab: Tab, given: Sequence[str]) -> list[Choice]:
    if len(given) > 2:
        raise UsageError(
            f'--{tab.name} got {len(given)} values; give the name of a model, or a config and a checkpoint'
        )
    return [Choice(*given)]


def _names(tab: Tab) -> list[str]:
    return [name for task in tab.tasks for name in list_models(task=task, pretrained=None)]


def _found(tab: Tab) -> list[Choice]:
    folders = published_folders()
    names = [name for name in _names(tab) if (weights := model_entry(name).weights) and weights.embedded]
    return [Choice(name) for name in names if find_published(name, folders) is not None]
