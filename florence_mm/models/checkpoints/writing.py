"""Writing of checkpoint files, atomically and a tensor at a time."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from florence_mm.utils.files import replacing

CHECKSUM = 'tensors_crc32'  # our key in the header of safetensors, a format without checksums
#: Names of types in the header of safetensors.
_TYPES = {
    torch.float64: 'F64',
    torch.float32: 'F32',
    torch.float16: 'F16',
    torch.bfloat16: 'BF16',
    torch.complex64: 'C64',
    torch.float8_e4m3fn: 'F8_E4M3',
    torch.float8_e5m2: 'F8_E5M2',
    torch.int64: 'I64',
    torch.int32: 'I32',
    torch.int16: 'I16',
    torch.int8: 'I8',
    torch.uint64: 'U64',
    torch.uint32: 'U32',
    torch.uint16: 'U16',
    torch.uint8: 'U8',
    torch.bool: 'BOOL',
}
_ALIGNMENT = 8  # bytes, of the first tensor


def write_safetensors(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Path:
    """Write tensors, metadata and a checksum of the tensors to a safetensors file, atomically.

    Tensors are written from where they lie, without a copy of the whole.

    Args:
        path: the file; its folder is created.
        state: tensors by key; tensors that share memory are written separately.
        meta: metadata, strings or values that JSON can represent.

    Raises:
        ValueError: a tensor is of a type or has a name that the format lacks.
        OSError: the disk is full or cannot be written to.
    """
    if '__metadata__' in state:
        raise ValueError('a tensor is named __metadata__, which a safetensors file cannot hold; leave it out')
    for key, value in state.items():
        if value.dtype not in _TYPES:
            kind = str(value.dtype).removeprefix('torch.')
            raise ValueError(f'{key} is of type {kind}, which a safetensors file cannot hold; leave it out')
    header = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (meta or {}).items()}
    header = {key: value.encode(errors='backslashreplace').decode() for key, value in header.items()}
    entries: dict[str, Any] = {'__metadata__': {'format': 'pt', **header, CHECKSUM: checksum(state)}}
    # wide types first, so that each tensor begins at a multiple of its size
    order = sorted(state, key=lambda key: (-state[key].element_size(), key))
    end = 0
    for key in order:
        begin, end = end, end + state[key].numel() * state[key].element_size()
        entries[key] = {
            'dtype': _TYPES[state[key].dtype],
            'shape': list(state[key].shape),
            'data_offsets': [begin, end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % _ALIGNMENT)
    with replacing(path) as temporary:
        try:
            with temporary.open('wb') as opened:
                opened.write(len(text).to_bytes(8, 'little') + text)
                for key in order:
                    opened.write(_bytes_of(state[key]))
        except OSError as error:
            raise OSError(f'{path} cannot be written ({error.strerror}); check its rights and the disk') from None
    return Path(path)


def write_pickled(
    path: str | Path, state: Mapping[str, Tensor], wrapper: str | None = None, meta: Mapping[str, Any] | None = None
) -> Path:
    """Write a checkpoint with :func:`torch.save`, atomically.

    Args:
        path: the file; its folder is created.
        state: tensors by key.
        wrapper: key under which they are; None: they are the whole content.
        meta: metadata, which has a place beside a wrapper alone.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    # torch.save writes all of the memory that a tensor is a part of
    tensors = {
        key: value.contiguous() if value.untyped_storage().nbytes() == value.nbytes else value.clone().contiguous()
        for key, value in state.items()
    }
    with replacing(path) as temporary:
        torch.save(tensors if wrapper is None else {wrapper: tensors, 'meta': dict(meta or {})}, temporary)
    return Path(path)


def checksum(state: Mapping[str, Tensor]) -> str:
    """CRC-32 of keys, types, shapes and bytes, in sorted order of the keys."""
    crc = 0
    for key in sorted(state):
        value = state[key]
        crc = zlib.crc32(f'{key} {value.dtype} {tuple(value.shape)}'.encode(), crc)
        crc = zlib.crc32(_bytes_of(value), crc)
    return f'{crc:08x}'


def _bytes_of(value: Tensor) -> memoryview:
    return memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
