"""A detector whose queries find objects becomes a file that gives its boxes, at other batches and sizes."""

import torch
from small_models import DETECTOR

from florence_mm.export.exporting import export_part
from florence_mm.export.parts import parts_of
from florence_mm.registry import MODELS


def test_a_file_gives_the_boxes_of_the_queries(tmp_path):
    torch.manual_seed(3)
    head = {
        **{'type': 'florence_mm.DynamicDETRHead', 'num_classes': 3, 'in_channels': 16, 'num_queries': 5},
        **{'num_stages': 1, 'num_heads': 2, 'filter_channels': 4, 'feedforward_channels': 16, 'strides': (4, 8)},
        **{'roi_size': 2, 'finest_scale': 20, 'sampling_ratio': 1},
    }
    encoder = {'type': 'florence_mm.DynamicDETREncoder', 'in_channels': 16, 'num_layers': 1}
    model = MODELS.build(
        {**DETECTOR, 'type': 'florence_mm.DynamicDETR', 'encoder': encoder, 'bbox_head': head, 'test_cfg': None}
    )
    for stage in model.bbox_head.stages:  # scores and boxes that differ
        torch.nn.init.normal_(stage.classify.weight, std=1.0)
    (part,) = parts_of(model.eval().requires_grad_(False), (96, 128))
    assert part.kind == 'detector' and part.free_size
    made = export_part(part, tmp_path / 'queries.onnx', {})  # run in its runtime, and compared
    assert len(made.checks) >= 2 and max(check.difference for check in made.checks) < 1e-4
    assert made.limits['batch'] == (1, None)
    assert made.limits['height'][1] is made.limits['width'][1] is None
