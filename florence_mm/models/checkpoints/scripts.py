"""Reading of the weights in a TorchScript archive, such as OpenAI's files of CLIP; its program is never run.

The archive is a zip file: ``data.pkl`` is a pickle of the modules' attributes, ``data/`` has the values of their
tensors, ``code/`` the program. The pickle is read by :class:`~.unpickling.InertUnpickler`, for which modules are inert
stand-ins, and the program is not read at all.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .unpickling import InertUnpickler, UnsafeContent, plain_content

_STORAGES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
#: What the unpickler raises for a pickle that torch did not write.
_OF_DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, EOFError)


class UnreadableScript(Exception):
    """An archive that is not laid out as torch writes it; the message says where."""


def is_script(file: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    return zipfile.is_zipfile(file) and any(name.endswith('/constants.pkl') for name in _names(file))


def _names(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


class _Unpickler(InertUnpickler):
    """Unpickler of ``data.pkl``.

    Args:
        archive: the opened zip file.
        folder: the folder in it, with a slash.
        map_location: device of the tensors.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str, map_location: Any) -> None:
        super().__init__(io.BytesIO(archive.read(f'{folder}data.pkl')))
        self._archive, self._folder = archive, folder
        # a callable or dict of torch.load names other devices than that of the CPU, where tensors then stay
        self._device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
        self._storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the type of the numbers of a storage, or what :class:`InertUnpickler` does."""
        if module == 'torch' and name in _STORAGES:
            return _STORAGES[name]
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Read the storage of a tensor."""
        kind, dtype, key, *_ = pid
        if kind != 'storage' or not isinstance(dtype, torch.dtype):
            raise UnreadableScript(f'it has a {kind} of {dtype}')
        key = str(key)
        if key not in self._storages:
            values = bytearray(self._archive.read(f'{self._folder}data/{key}'))
            numbers = torch.frombuffer(values, dtype=torch.uint8) if values else torch.empty(0, dtype=torch.uint8)
            untyped = numbers.to(self._device).untyped_storage()
            self._storages[key] = torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)
        return self._storages[key]


def read_script(file: Path, map_location: Any = 'cpu') -> dict[str, Tensor]:
    """Read parameters and buffers of a TorchScript archive by their names, as ``state_dict`` would give them.

    Args:
        file: the archive.
        map_location: a device or its name; with anything else tensors stay on the CPU.

    Raises:
        UnsafeContent: the archive asks for something that runs code; it was not run.
        UnreadableScript: it is not laid out as torch writes it.
    """
    with zipfile.ZipFile(file) as archive:
        folder = next(name for name in archive.namelist() if name.endswith('/constants.pkl'))
        folder = folder.removesuffix('constants.pkl')
        try:
            content, _ = plain_content(_Unpickler(archive, folder, map_location).load())
        except UnsafeContent:
            raise
        except (*_OF_DAMAGE, pickle.UnpicklingError) as error:
            raise UnreadableScript(str(error).strip('\'"')) from error
    return dict(_tensors(content, ''))


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors of nested dicts, which modules have become, by their dotted names."""
    for name, part in value.items() if isinstance(value, dict) else ():
        if isinstance(part, Tensor):
            yield f'{path}{name}', part
        else:
            yield from _tensors(part, f'{path}{name}.')
