"""Reading and writing checkpoint files without unpickling code."""

import hashlib
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict')


def fetch(path: str | Path) -> Path:
    """A local path; a URL is downloaded once into torch's hub folder, with a progress bar."""
    url = urlparse(str(path))
    if url.scheme not in ('http', 'https', 'file'):
        return Path(path)
    # two places may use the same file name
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    target = Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{Path(url.path).name}'
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(str(path), str(target))
    return target


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by key, and what else the file says about itself.

    Args:
        path: ``.safetensors`` or anything ``torch.save`` wrote; a local path or a URL. Of a dict of dicts (mmengine:
            ``state_dict``, Microsoft: ``model``) the model's part is taken.

    Returns:
        the tensors on the CPU, and the metadata: a safetensors header, or mmengine's ``meta``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no checkpoint, holds code, or holds no tensors.
    """
    file = fetch(path)
    if not file.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist; give a file or a URL')
    if file.suffix == '.safetensors':
        try:
            with safetensors.safe_open(file, 'pt') as opened:
                meta = dict(opened.metadata() or {})
            return safetensors.torch.load_file(file), meta
        except safetensors.SafetensorError as error:
            raise ValueError(
                f'{path} is not a complete safetensors file ({error}); download or write it again'
            ) from None
    try:
        content = torch.load(file, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if 'GLOBAL ' not in str(error):
            raise ValueError(f'{path} is not a checkpoint that torch can read; download or write it again') from None
        wanted = str(error).split('GLOBAL ')[1].split(' ')[0]
        raise ValueError(
            f'{path} holds more than tensors ({wanted}), and loading it could run code; '
            f'save its state dict alone, or as safetensors, where you trust it'
        ) from None
    except Exception as error:  # bytes that are no pickle fail in the unpickler in any way
        why = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
        raise ValueError(
            f'{path} is not a checkpoint that torch can read ({why}); download or write it again'
        ) from None
    meta = content.get('meta', {}) if isinstance(content, dict) else {}
    for _ in range(2):
        inner = next(
            (content[k] for k in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(k), dict)), None
        )
        content = content if inner is None else inner
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f'{path} holds no tensors by name; expected a state dict, alone or under one of {_WRAPPERS}')
    return tensors, meta if isinstance(meta, dict) else {}


def write_safetensors(path: str | Path, state: dict[str, Tensor], meta: dict[str, Any] | None = None) -> Path:
    """Write tensors and metadata; the file appears complete or not at all.

    Args:
        path: where to; the folder is made.
        state: tensors by key; views are written as tensors of their own.
        meta: strings, or values that JSON can hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory
    state = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    header = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (meta or {}).items()}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix='.tmp', delete=False) as file:
        temporary = Path(file.name)
    try:
        safetensors.torch.save_file(state, temporary, metadata={'format': 'pt', **header})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
