"""Exported files in their runtimes, all behind one function from arrays to arrays."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.files import FILE, kind_of_file
from florence_mm.utils.numbers import is_whole

from .onnx_files import KEY
from .placing import format_of, require_packages

Arrays = dict[str, np.ndarray]


class Opened(NamedTuple):
    """An exported file in its runtime.

    Attributes:
        run: function from named inputs to named outputs.
        metadata: what the export wrote into the file.
    """

    run: Callable[[Mapping[str, np.ndarray]], Arrays]
    metadata: dict[str, Any]


def open_runtime(path: str | Path, threads: int | None = None, precision: str | None = None) -> Opened:
    """Open an exported file.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt2``.
        threads: threads of the runtime; None: its own choice. A program of torch runs on torch's.
        precision: ``'fp32'`` or ``'bf16'`` of OpenVINO's arithmetic; None: what the file was exported for.

    Raises:
        DataError: the file is missing, damaged, or was not written by florence_mm.
        UsageError: another suffix, the runtime is not installed, or it has no such threads or precision.
    """
    if threads is not None and (not is_whole(threads) or threads < 1):
        raise UsageError(f'threads is {threads!r}; give at least 1, a whole number, or None')
    path = Path(path)
    file_format = format_of(path)
    if precision not in (None, 'fp32', 'bf16') or precision == 'bf16' and file_format != 'openvino':
        raise UsageError(f'precision is {precision!r}; of an OpenVINO file it may be fp32 or bf16, of others None')
    require_packages(file_format)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read ({error}); check the path') from None
    if kind_of_file(status) != FILE:
        raise DataError(f'{path} is {kind_of_file(status)}; give the file that an export wrote')
    opened = {'onnx': _open_onnx, 'openvino': _open_openvino, 'torch': _open_torch}[file_format]
    return opened(path, threads, precision)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f'{path} cannot be opened ({str(error).strip().partition(chr(10))[0][:200]}); export the model again'
    )


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or '')
    except ValueError:
        found = None
    if not isinstance(found, dict) or 'kind' not in found:
        raise DataError(f'{path} has no description of its inputs; give a file written by florence-mm export')
    return found


def _open_onnx(path: Path, threads: int | None, precision: str | None) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # waiting threads that spin take the time of those that work
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its errors have no class of their own
        raise _damaged(path, error) from None
    names = [output.name for output in session.get_outputs()]
    metadata = _metadata(path, session.get_modelmeta().custom_metadata_map.get(KEY))
    return Opened(lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True)), metadata)


def _open_openvino(path: Path, threads: int | None, precision: str | None) -> Opened:
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        raise _damaged(path, error) from None
    metadata = _metadata(path, model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None)
    # what is not in 8 bits is computed in bf16 too, where the processor has it; f32 is never bf16 without being asked
    short = (precision or metadata.get('precision')) in ('bf16', 'int8')
    settings = {'INFERENCE_PRECISION_HINT': 'bf16' if short else 'f32'}
    if metadata['kind'] == 'detector':
        # with fused kernels boxes were off by 3e-3 on an AVX2 processor; on one with AVX-512 nothing differs
        settings['SNIPPETS_MODE'] = 'DISABLE'
    if threads is not None:
        settings['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(model, 'CPU', settings)
    names = [next(iter(port.get_names())) for port in compiled.outputs]

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        found = compiled(dict(inputs))
        return {name: np.array(found[i]) for i, name in enumerate(names)}

    return Opened(run, metadata)


def _open_torch(path: Path, threads: int | None, precision: str | None) -> Opened:
    extra = {KEY: ''}
    try:
        program = torch.export.load(str(path), extra_files=extra)
    except Exception as error:  # a damaged archive, a missing part, another version
        raise _damaged(path, error) from None
    metadata = _metadata(path, extra[KEY])
    module, names = program.module(), metadata['outputs']

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            found = module(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in metadata['inputs']))
        found = found if isinstance(found, tuple | list) else [found]
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    return Opened(run, metadata)
