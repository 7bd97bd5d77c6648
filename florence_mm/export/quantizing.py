"""Files with 8-bit weights: of ONNX for onnxruntime, of OpenVINO for its runtime, both on a CPU."""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

#: Layers that are computed in 8 bits; norms, softmax and deformable convolutions stay in float32.
_LAYERS = ('MatMul', 'Gemm', 'Conv')


def quantize_onnx(path: str | Path, examples: Iterable[Mapping[str, np.ndarray]] | None = None) -> None:
    """Replace an ONNX file by one with 8-bit weights.

    Without examples activations are quantized by their range in each call, and convolutions stay in float32; with them
    by the ranges that the examples show, once.

    Args:
        path: the file, whose metadata is kept.
        examples: inputs of the file, a picture or more each.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    path = Path(path)
    with TemporaryDirectory(dir=path.parent) as folder, _silent():
        made = Path(folder) / path.name
        if examples is None:
            quantize_dynamic(path, made, op_types_to_quantize=['MatMul', 'Gemm'], weight_type=QuantType.QInt8)
        else:
            quantize_static(
                path,
                made,
                _Examples(examples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_LAYERS),
                nodes_to_exclude=_without_weights(path),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        model, source = onnx.load(made), onnx.load(path, load_external_data=False)
        del model.metadata_props[:]
        model.metadata_props.extend(source.metadata_props)
        onnx.save(model, path)


def quantize_openvino(path: str | Path, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Replace an OpenVINO file by one whose linear layers and convolutions compute in 8 bits, as its examples show.

    Args:
        path: the .xml file, beside its .bin; its metadata are kept.
        examples: inputs of the file, a picture or more each.
    """
    with _silent():
        import nncf
        import openvino

        path, shown = Path(path), list(examples)
        made = nncf.quantize(
            openvino.Core().read_model(str(path)),
            nncf.Dataset([list(example.values()) for example in shown]),
            subset_size=len(shown),
            model_type=nncf.ModelType.TRANSFORMER,
            # smoothing multiplies the error of a CoSwin-T by 2.6
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1)
            ),
        )
        with TemporaryDirectory(dir=path.parent) as folder:
            # the file that was read is in use until the new one is written
            openvino.save_model(made, str(Path(folder) / path.name), compress_to_fp16=False)
            for suffix in ('.xml', '.bin'):
                (Path(folder) / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))


def _without_weights(path: Path) -> list[str]:
    """Names of the products of two activations: in 8 bits they cost more than they gain, in time and in error."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [node.name for node in graph.node if node.op_type == 'MatMul' and not weights.intersection(node.input)]


class _Examples:
    """onnxruntime's reader of calibration data.

    Args:
        examples: inputs of the file.
    """

    def __init__(self, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
        self.examples = iter(examples)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs; None at the end."""
        found = next(self.examples, None)
        return None if found is None else dict(found)


@contextlib.contextmanager
def _silent() -> Any:
    """Without advice and progress of other packages."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
