"""Files in bf16 and with 8-bit weights: they compute nearly what the model does, and take the room that they should."""

import onnx
import pytest
import torch
from small_models import TWO_TOWERS

from florence_mm.errors import UsageError
from florence_mm.export.exporting import export_part
from florence_mm.export.parts import parts_of
from florence_mm.export.runtimes import open_runtime
from florence_mm.registry import MODELS

SIZE = (32, 32)


@pytest.fixture(scope='module')
def image():
    torch.manual_seed(0)
    wide = {'embed_dims': 96, 'depths': [1, 1], 'num_heads': [2, 2], 'window_size': 4}
    model = MODELS.build({**TWO_TOWERS, 'image_encoder': {**TWO_TOWERS['image_encoder'], 'arch': wide}})
    return parts_of(model.eval().requires_grad_(False), SIZE, only='image')[0]


def examples(part, count=4):
    return [{name: value.numpy() for name, value in part.example(2, SIZE, seed).items()} for seed in range(count)]


def relative_error(part, opened):
    inputs = part.example(3, SIZE, seed=9)
    with torch.no_grad():
        expected = part.module(*inputs.values())
    found = opened.run({name: value.numpy() for name, value in inputs.items()})
    (found,) = (torch.from_numpy(value) for value in found.values())
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ('name', 'precision', 'calibrated', 'bound'),
    [
        ('a.onnx', 'int8', True, 0.06),
        ('a.onnx', 'int8', False, 0.06),
        ('a.xml', 'int8', True, 0.06),
        ('a.xml', 'bf16', False, 0.02),
    ],
)
def test_nearly_the_model(image, tmp_path, name, precision, calibrated, bound):
    made = export_part(
        image, tmp_path / name, {'name': 'x'}, precision=precision, examples=examples(image) if calibrated else None
    )
    opened = open_runtime(made.path, threads=1)
    assert opened.metadata['precision'] == precision and opened.metadata['name'] == 'x'
    assert relative_error(image, opened) < bound
    if precision == 'int8':
        assert relative_error(image, opened) > 1e-3
        weights = sum(value.numel() for value in image.module.parameters())
        file = made.path.with_suffix('.bin' if name.endswith('.xml') else '.onnx')
        assert file.stat().st_size < 0.7 * 4 * weights


def test_products_of_two_activations_stay_exact(image, tmp_path):
    export_part(image, tmp_path / 'a.onnx', {}, precision='int8', examples=examples(image))
    graph = onnx.load(tmp_path / 'a.onnx').graph
    short = {name for node in graph.node if node.op_type == 'DequantizeLinear' for name in node.output}
    exact = [node for node in graph.node if node.op_type == 'MatMul' and not short.intersection(node.input)]
    assert len(exact) == 4  # queries with keys, weights with values, in two blocks


@pytest.mark.parametrize(('name', 'shown'), [('a.onnx', []), ('a.xml', []), ('a.xml', None)])
def test_no_pictures(image, tmp_path, name, shown):
    with pytest.raises(
        UsageError, match='no pictures for the calibration|of int8 without pictures; give --calibration'
    ):
        export_part(image, tmp_path / name, {}, precision='int8', examples=shown)
    assert list(tmp_path.iterdir()) == []
