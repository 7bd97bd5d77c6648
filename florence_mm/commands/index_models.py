"""Which model an index was made with, as known on this machine.

An index names its model too, but it may come from somebody else, and a config is Python that runs when it is read. So a
config is taken from an index only if it is one of this package; others are kept in ``indexes.json`` of the home folder
by whoever makes an index here.
"""

import json
from pathlib import Path

from florence_mm.config.metafiles import model_entries
from florence_mm.errors import UsageError
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import home
from florence_mm.utils.json_files import read_json


def remember_model(index: str | Path, config: str | None, checkpoint: str | None) -> None:
    """Keep the model that an index is made with, for :func:`recall_model`."""
    known = _known()
    entry = [config, checkpoint]
    if known.get(_key(index)) != entry:
        known[_key(index)] = entry
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(), json.dumps(known, indent=1))


def recall_model(index: str | Path, head: dict) -> tuple[str | None, str | None]:
    """Tell config and checkpoint of an index.

    Args:
        index: its folder.
        head: what its ``index.json`` says.

    Raises:
        UsageError: its config is not of this package and was not given on this machine.
    """
    found = _known().get(_key(index))
    if isinstance(found, list) and len(found) == 2 and found[0] == head.get('config'):
        return found[0], found[1]
    config = head.get('config')
    if config is not None and config not in {str(entry.config) for entry in model_entries().values()}:
        raise UsageError(
            f'the index {index} was made elsewhere, with the config {config}, which would be run; give the model with '
            '--model and --checkpoint'
        )
    return config, head.get('checkpoint')


def _known() -> dict:
    return read_json(_file()) if _file().is_file() else {}


def _file() -> Path:
    return home() / 'indexes.json'


def _key(index: str | Path) -> str:
    return str(Path(index).resolve())
