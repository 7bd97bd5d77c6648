"""Encoders in bfloat16, what comes after them in float32, and what a processor is asked."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from florence_mm.errors import UsageError
from florence_mm.models import precision
from florence_mm.models.backbones import CoSwin
from florence_mm.models.precision import check_precision, set_precision, use_bfloat16
from florence_mm.ops.precision import bfloat16_units

CPU = torch.device('cpu')
ARCH = {'embed_dims': 8, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 2, 2], 'window_size': 2}


class Detector(nn.Module):
    """A backbone in a part of a model, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Module()
        self.inner.backbone = CoSwin(ARCH, out_indices=(2, 3))
        self.head = nn.Conv2d(64, 4, 1)

    def forward(self, x):
        maps = self.inner.backbone(x)
        return maps, self.head(maps[-1])


@pytest.fixture
def has(monkeypatch):
    def give(units):
        monkeypatch.setattr(precision, 'bfloat16_units', lambda device: units)

    return give


@torch.no_grad()
def test_encoders_are_lowered_and_the_rest_is_not():
    model, x = Detector().eval(), torch.randn(2, 3, 64, 96)
    exact, _ = model(x)
    seen = []
    model.inner.backbone.layers[0].blocks[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    use_bfloat16(model)
    assert {p.dtype for p in model.inner.backbone.parameters()} == {torch.bfloat16}
    assert model.head.weight.dtype == torch.float32
    maps, found = model(x)
    assert seen == [torch.bfloat16] and {one.dtype for one in (*maps, found)} == {torch.float32}
    for one, other in zip(maps, exact, strict=True):
        assert 0 < (one - other).norm() / other.norm() < 0.02


@torch.no_grad()
def test_two_names_of_one_encoder_and_inputs_of_any_kind():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1 + 2**-10))  # 1 in bfloat16

        def forward(self, ids, mask=None, causal=False):
            assert ids.dtype == torch.int64 and mask['kept'].dtype == torch.bool and causal is True
            assert mask['weights'].dtype == torch.bfloat16
            return {'all': [mask['weights'] * self.scale, ids]}

    model = nn.Module()
    model.text_encoder = Encoder()
    model.other = nn.Module()
    model.other.image_encoder = model.text_encoder
    use_bfloat16(model)
    assert len(model.text_encoder._forward_hooks) == 1
    mask = {'kept': torch.ones(2, dtype=torch.bool), 'weights': torch.tensor([1.0, 2.0])}
    weighted, ids = model.text_encoder(torch.tensor([3, 4]), mask=mask, causal=True)['all']
    assert weighted.dtype == torch.float32 and weighted.tolist() == [1.0, 2.0] and ids.tolist() == [3, 4]


def test_models_without_encoders_are_refused():
    with pytest.raises(
        UsageError, match=r"a Linear has no backbone, image_encoder, text_encoder, which precision 'bf16'"
    ):
        use_bfloat16(nn.Linear(2, 2))


def test_auto_takes_what_there_is_and_says_so_once(has, caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            for units, chosen in (('AMX', 'bf16'), (None, 'fp32')):
                has(units)
                model = Detector().eval()
                assert set_precision(model, 'auto', CPU) == chosen
                assert (model.inner.backbone.norm.weight.dtype == torch.bfloat16) == (chosen == 'bf16')
            assert set_precision(model, 'fp32', CPU) == 'fp32'
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == [
        'precision: bf16, as there is AMX',
        'precision: fp32, as nothing here multiplies faster in bf16',
    ]


def test_what_cannot_be_is_refused(has):
    has(None)
    assert check_precision('fp32', CPU) == check_precision('auto', CPU) == 'fp32'
    with pytest.raises(UsageError, match=r"precision 'bf16' would be slower than 'fp32', .* give 'fp32' or 'auto'"):
        check_precision('bf16', CPU)
    has('AVX-512 bf16')
    assert check_precision('bf16', CPU) == 'bf16'
    for wrong in ('fp16', None, 16):
        with pytest.raises(UsageError, match=r'precision is .*; give one of auto, fp32, bf16, int8'):
            check_precision(wrong, CPU)
    with pytest.raises(
        UsageError, match=r'florence-mm export MODEL model.onnx --precision int8 --calibration PICTURES'
    ):
        check_precision('int8', CPU)


def test_a_processor_is_asked_for_units_of_its_own(monkeypatch):
    module = 'florence_mm.ops.precision'
    monkeypatch.setattr(f'{module}.has_bfloat16_products', lambda: True)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True, raising=False)
    assert bfloat16_units(CPU) == 'AVX-512 bf16'
    # oneDNN converts on processors of AVX-512 without bf16
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False, raising=False)
    assert bfloat16_units(CPU) is None and bfloat16_units(torch.device('meta')) is None
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: True, raising=False)
    assert bfloat16_units(CPU) == 'AMX'
    monkeypatch.setattr(f'{module}.has_bfloat16_products', lambda: False)
    assert bfloat16_units(CPU) is None
