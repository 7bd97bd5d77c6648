"""A Perceiver, a ViLT and a BLIP-2 become files that take any number of pictures."""

import pytest
import torch
from small_models import CLASSIFIER, METER

from florence_mm.export.exporting import export_part
from florence_mm.export.parts import parts_of
from florence_mm.registry import MODELS

LATENTS = {'num_latents': 4, 'embed_dims': 16, 'depth': 1, 'num_heads': 2, 'qk_channels': 16, 'init_std': 0.4}
PERCEIVER = {
    **CLASSIFIER,
    'backbone': {'type': 'florence_mm.Perceiver', 'arch': LATENTS, 'img_size': 16, 'num_bands': 2, 'out_type': 'raw'},
    'neck': {'type': 'florence_mm.PerceiverDecoder', 'in_channels': 16},
    'head': {**CLASSIFIER['head'], 'in_channels': 16},
}
VILT = {
    'type': 'florence_mm.ViLT',
    'hidden_size': 16,
    'num_layers': 1,
    'num_heads': 2,
    'patch_size': 8,
    'img_size': 32,
    'init_std': 0.4,
    **{key: METER[key] for key in ('tokenizer', 'heads', 'max_text_len')},
}

TOWER = {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2, 'patch_size': 8}
BLIP2 = {
    'type': 'florence_mm.BLIP2',
    'image_encoder': {'type': 'florence_mm.CLIPVisionTower', 'arch': TOWER, 'img_size': 32, 'out_type': 'raw'},
    'text': {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'max_positions': 60, 'init_std': 0.4},
    'num_queries': 3,
    'heads': {'itm': {'type': 'FusionITMHead'}},
    **{key: METER[key] for key in ('tokenizer', 'max_text_len')},
}
FAMILIES = [(PERCEIVER, 'classifier'), (VILT, 'answerer'), (VILT, 'matcher'), (BLIP2, 'matcher')]


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2'])
@pytest.mark.parametrize(('model', 'kind'), FAMILIES)
def test_files_take_any_number_of_pictures(tmp_path, model, kind, suffix):
    torch.manual_seed(3)
    built = MODELS.build(model).eval().requires_grad_(False)
    (part,) = parts_of(built, (32, 32), only=kind)
    made = export_part(part, tmp_path / f'a{suffix}', {})  # compares with the model at several numbers
    assert made.limits['batch'] == (1, None)
    assert len(made.checks) == 3 and max(check.difference for check in made.checks) < 1e-5
