"""Which model an index was made with, as known on this machine.

An index names its model too, but it may come from somebody else, and a config is Python that runs when it is read. So a
config is taken from an index only if it is one of this package; others are kept in the folder ``indexes`` of the home
folder by whoever makes an index here, in a file for each index, as several may be made at once.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from florence_mm.config.metafiles import model_entries
from florence_mm.errors import DataError, UsageError
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import home
from florence_mm.utils.json_files import read_json


def remember_model(index: str | Path, config: str | None, checkpoint: str | None) -> None:
    """Keep the model that an index is made with, for :func:`recall_model`; a warning says if that cannot be."""
    if _known(index) == (config, checkpoint):
        return
    entry = {'index': str(Path(index).resolve()), 'config': config, 'checkpoint': checkpoint}
    try:
        write_atomic(_file(index), json.dumps(entry, indent=1) + '\n')
    except (OSError, UsageError) as error:
        text = f'the model of the index {index} is not kept on this machine ({error}); name it with --model each time'
        print_log(text, 'current', logging.WARNING)


def recall_model(index: str | Path, head: dict) -> tuple[str | None, str | None]:
    """Tell config and checkpoint of an index.

    Args:
        index: its folder.
        head: what its ``index.json`` says.

    Raises:
        UsageError: its config is not of this package and was not given on this machine.
    """
    found = _known(index)
    if found is not None and found[0] == head.get('config'):
        return found
    config = head.get('config')
    if config is not None and config not in {str(entry.config) for entry in model_entries().values()}:
        raise UsageError(
            f'the index {index} was made elsewhere, with the config {config}, which would be run; give the model with '
            '--model and --checkpoint'
        )
    return config, head.get('checkpoint')


def _known(index: str | Path) -> tuple[str | None, str | None] | None:
    """Config and checkpoint that were kept; None without them, or where their file is damaged."""
    try:
        entry = read_json(_file(index))
    except (DataError, OSError, UsageError):
        return None
    if not {'config', 'checkpoint'} <= set(entry):
        return None
    return entry['config'], entry['checkpoint']


def _file(index: str | Path) -> Path:
    name = hashlib.sha256(os.fsencode(Path(index).resolve())).hexdigest()[:32]
    return home() / 'indexes' / f'{name}.json'
