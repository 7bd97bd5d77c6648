"""Models whose weights lie in a folder, also in several files with an index, as transformers writes them."""

import json
from pathlib import Path
from typing import Any

from florence_mm.utils.files import FOLDER_INDEX

#: Names of the weights in a folder, in the order in which transformers looks for them.
NAMES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
    'open_clip_model.safetensors',
    'open_clip_pytorch_model.bin',
)
_INDEX = '.index.json'


def weights_in(path: str | Path) -> str | Path:
    """Find the weights, or their index, in a folder of transformers or open_clip; other paths are returned as given.

    Args:
        path: a file, folder or URL, which need not exist. The folder of a sharded checkpoint is returned as given.

    Raises:
        FileNotFoundError: there are none in the folder.
    """
    folder = Path(path).expanduser()
    if '://' in str(path) or not folder.is_dir() or (folder / FOLDER_INDEX).is_file():
        return path
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f'checkpoint {path} does not exist as a file, and the folder of that name has none of {", ".join(NAMES)}; '
            'give a file'
        )
    return found


def is_index(path: str | Path) -> bool:
    """Whether a local path is that of an index of several files."""
    return str(path).endswith(_INDEX) and '://' not in str(path) and Path(path).expanduser().is_file()


def shards_of(index: str | Path) -> dict[Path, set[str]]:
    """Read an index: the files that hold a model together, each with the names of its tensors.

    Raises:
        ValueError: the file is no index, or names a file outside of its folder.
        FileNotFoundError: a file that it names is missing.
    """
    index = Path(index).expanduser()
    try:
        content: Any = json.loads(index.read_text(encoding='utf-8'))
    except ValueError:  # also of bytes that are no text
        content = None
    places = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f'{index} is no index of weights: it has no weight_map of tensor names to files')
    shards: dict[Path, set[str]] = {}
    for key, name in places.items():
        if Path(name).name != name or name in ('', '.', '..'):
            raise ValueError(f'{index} places {key} in {name!r}, which is no file beside it; download the model again')
        shards.setdefault(index.with_name(name), set()).add(key)
    if missing := next((file for file in shards if not file.is_file()), None):
        raise FileNotFoundError(f'checkpoint {missing}, one of the {len(shards)} of {index.name}, does not exist')
    return shards
