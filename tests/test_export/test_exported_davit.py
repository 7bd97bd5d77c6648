"""Models on DaViT become files that give their answers in both runtimes, at other batches and sizes."""

import pytest
import torch
from small_models import DAVIT

from florence_mm.export.exporting import export_part
from florence_mm.export.parts import parts_of
from florence_mm.registry import MODELS


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
@pytest.mark.parametrize(
    ('name', 'kind', 'size', 'free'),
    [
        ('towers', 'image', (32, 40), False),
        ('classifier', 'classifier', (36, 44), False),  # maps of 9 x 11 and 5 x 6 tokens, padded to windows of 4
        ('detector', 'detector', (96, 128), True),
    ],
)
def test_files_give_what_the_model_gives(tmp_path, name, kind, size, free, suffix):
    torch.manual_seed(3)
    model = MODELS.build(DAVIT[name]).eval().requires_grad_(False)
    (part,) = parts_of(model, size, free, kind)
    made = export_part(part, tmp_path / f'davit{suffix}', {})  # run in its runtime, and compared
    assert len(made.checks) >= 2 and max(check.difference for check in made.checks) < 2e-5
    assert made.limits['batch'] == (1, None)
    if free:
        assert made.limits['height'][1] is made.limits['width'][1] is None
