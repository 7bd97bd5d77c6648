"""ONNX files with 8-bit weights, for onnxruntime on a CPU."""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from florence_mm.errors import UsageError

#: Layers that are computed in 8 bits; norms, softmax and deformable convolutions stay in float32.
_LAYERS = ('MatMul', 'Gemm', 'Conv')


def quantize(path: str | Path, examples: Iterable[Mapping[str, np.ndarray]] | None = None) -> None:
    """Replace an ONNX file by one with 8-bit weights.

    Without examples activations are quantized by their range in each call, and convolutions stay in float32; with them
    by the ranges that the examples show, once.

    Args:
        path: the file, whose metadata is kept.
        examples: inputs of the file, a picture or more each.

    Raises:
        UsageError: there are no examples in the iterable.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    path = Path(path)
    with TemporaryDirectory(dir=path.parent) as folder, _silent():
        made = Path(folder) / path.name
        if examples is None:
            quantize_dynamic(path, made, op_types_to_quantize=['MatMul', 'Gemm'], weight_type=QuantType.QInt8)
        else:
            reader = _Examples(examples)
            quantize_static(
                path,
                made,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_LAYERS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            if not reader.count:
                raise UsageError('there are no pictures for the calibration; give some')
        model, source = onnx.load(made), onnx.load(path, load_external_data=False)
        del model.metadata_props[:]
        model.metadata_props.extend(source.metadata_props)
        onnx.save(model, path)


class _Examples:
    """onnxruntime's reader of calibration data.

    Args:
        examples: inputs of the file.
    """

    def __init__(self, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
        self.examples = iter(examples)
        self.count = 0

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs; None at the end."""
        found = next(self.examples, None)
        self.count += found is not None
        return None if found is None else dict(found)


@contextlib.contextmanager
def _silent() -> Any:
    """Without advice to simplify the file first, which costs more than it gives here."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
