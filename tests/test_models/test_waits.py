"""What a training step waits for on a GPU: counted on tensors that only say that they are on one."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from away_device import AwayDevice, send
from mmengine.config import Config
from mmengine.hooks import Hook

from florence_mm.models.algorithms import UniCLClassifier
from florence_mm.models.multimodal.batch import find_equal
from florence_mm.ops.rows import scatter_rows
from florence_mm.smoke.run import _SmokeRunner, smoke_config

CONFIGS = Path(__file__).parents[2] / 'configs'


class Bring(Hook):
    """Bring the model to the device before training, and count the waits of each iteration apart."""

    priority = 'LOWEST'

    def __init__(self, device):
        self.device, self.steps = device, []

    def before_train(self, runner):
        self.device.bring(runner.model)
        self.device.__enter__()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if isinstance(runner.model, UniCLClassifier):
            for sample in data_batch['data_samples']:
                sample.set_gt_label(int(sample.label_key) % 10)
        self.device.waits = Counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(self.device.waits)


def count_waits(path, folder, **model):
    """Waits of the third iteration of a config on generated data, in a run that logs none of its first three."""
    cfg = Config.fromfile(CONFIGS / path)
    if model:
        cfg.model = {**model, 'towers': cfg.model}
    cfg = smoke_config(cfg, folder)
    cfg.train_cfg = {'type': 'florence_mm.IterTrainLoop', 'max_iters': 4}
    cfg.default_hooks.logger = {'type': 'LoggerHook', 'interval': 50}
    cfg.experiment_name = f'waits_{Path(path).stem}_{len(model)}'
    for part in ('dataloader', 'cfg', 'evaluator'):
        cfg.pop(f'val_{part}', None)
        cfg.pop(f'test_{part}', None)
    runner = _SmokeRunner.from_cfg(cfg)
    device = AwayDevice()
    bring = Bring(device)
    runner.register_hook(bring)
    try:
        runner.train()
    finally:
        device.__exit__()
    assert len(bring.steps) == 4
    with device:
        # all are there, and none of them is left for other tests to read
        assert len(runner.message_hub.log_scalars['train/loss'].data[0]) == 4
    device.waits = bring.steps[2]
    return device


EQUAL_IMAGES = {'batch.py': 1}  # which images of a batch are equal decides how many are encoded
UNICL = 'unicl/unicl_coswin-micro_1xb64-36e_digits.py'
CLASSIFIER = {'type': 'UniCLClassifier', 'classes': 'digits'}


@pytest.mark.parametrize(
    ('config', 'model', 'ours'),
    [
        (UNICL, {}, {}),
        (UNICL, CLASSIFIER, {}),
        ('meter/meter_coswin-micro_2xb32-2e_large-digits.py', {}, EQUAL_IMAGES),
        ('meter/meter_coswin-micro_2xb64-6e_large-digit-vqa.py', {}, EQUAL_IMAGES),
        ('meter/meter_coswin-micro_caption_2xb16-4e_large-digits.py', {}, EQUAL_IMAGES),
    ],
    ids=['UniCL', 'UniCL-classifier', 'METER-pretraining', 'METER-VQA', 'METER-captions'],
)
def test_a_step_waits_at_most_once(config, model, ours, tmp_path):
    device = count_waits(config, tmp_path, **model)
    assert by_file(device.waits) == ours, dict(device.waits)


@pytest.mark.parametrize(
    ('config', 'ours', 'theirs'),
    [
        # mmdet's assigner, sampler, anchors and box coder wait several times an image
        ('dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py', {'dynamic_head.py': 1}, 'mmdet'),
        # mmaction2 computes the accuracy of each step with numpy
        ('video_coswin/video_coswin-micro_2xb5-3e_clips.py', {}, 'mmaction'),
    ],
    ids=['detector', 'video'],
)
def test_our_part_of_other_models_waits_at_most_once(config, ours, theirs, tmp_path):
    device = count_waits(config, tmp_path)
    assert by_file(device.of('florence_mm')) == ours, dict(device.waits)
    assert {key[0] for key in device.waits} <= {'florence_mm', 'mmengine', theirs}
    assert sum(device.of(theirs).values()) > 1


def by_file(waits):
    """Counts by the name of the file."""
    counts = Counter()
    for key, count in waits.items():
        counts[key[-2].rpartition('/')[2].partition(':')[0]] += count
    return dict(counts)


@pytest.mark.parametrize('repeats', [[0], [0, 1, 2], [0, 0, 0], [0, 1, 0, 2, 1, 0, 3]])
def test_equal_images_are_those_that_a_cpu_finds(repeats):
    images = torch.stack([torch.full((3, 4, 4), float(repeat)) for repeat in repeats])
    with AwayDevice() as device:
        found = find_equal(send(images))
    assert found == find_equal(images)
    assert sum(device.waits.values()) == 1


def test_images_of_one_sum_are_told_apart():
    images = torch.tensor([[1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    with AwayDevice():
        assert find_equal(send(images)) == find_equal(images) == ([0, 1], [0, 1, 1])


def test_rows_are_added_without_a_wait():
    index = torch.tensor([[0, 3], [3, 3], [1, 0]])
    values, weight = torch.arange(6.0).view(3, 2), torch.arange(1.0, 7.0).view(3, 2)
    with AwayDevice() as device:
        ours = scatter_rows(send(values), send(index), send(weight), 5)
    assert torch.equal(ours.held, scatter_rows(values, index, weight, 5)) and not device.waits
