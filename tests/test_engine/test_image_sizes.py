"""Images of training have several sizes in turns: one a batch, on all processes, also in a resumed run."""

from types import SimpleNamespace

import forks
import pytest
import torch
import torch.distributed as dist
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from PIL import Image
from torch import nn
from toy_project import toy_config

from florence_mm.engine.hooks import ImageSizesHook
from florence_mm.errors import UsageError
from florence_mm.models.preprocessor import ImageTextDataPreprocessor

SIZES = [8, 12, 16]


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 23

    def __getitem__(self, index):
        return {'inputs': torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8), 'data_samples': int(index)}


@MODELS.register_module()
class OfAnySize(BaseModel):
    """Remembers the sizes of its batches; its loss depends on them."""

    def __init__(self):
        super().__init__(ImageTextDataPreprocessor())
        self.conv, self.seen, self.tested = nn.Conv2d(3, 2, 3), [], []

    def forward(self, inputs, data_samples, mode='tensor'):
        (self.seen if mode == 'loss' else self.tested).append(tuple(inputs.shape[-2:]))
        out = self.conv(inputs).square().mean()
        return {'loss': out} if mode == 'loss' else [{'error': out}] * len(inputs)


def config(**changes):
    loaders = {
        name: {**loader, 'dataset': {'type': 'Noise'}}
        for name, loader in toy_config('x').items()
        if name.endswith('_dataloader')
    }
    hooks = [{'type': 'florence_mm.ImageSizesHook', 'sizes': SIZES}]
    return {**loaders, 'model': {'type': 'OfAnySize'}, 'custom_hooks': hooks, **changes}


def test_sizes_come_in_turns_and_a_resumed_run_goes_on_with_them(train, tmp_path):
    whole = train('whole', **config())
    assert whole.model.seen == [(size, size) for size in (SIZES * 6)[:17]]
    assert set(whole.model.tested) == {(16, 16)}
    part = train('part', **config(train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 5, 'val_interval': 5}))
    assert part.model.seen == whole.model.seen[:5]
    start = str(tmp_path / 'part/iter_5.pth')
    resumed = train('part', **config(), resume=True, load_from=start)
    assert resumed.model.seen == whole.model.seen[5:]
    states = [one.model.state_dict() for one in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    # behind the training batches keep their size
    batch = {'inputs': [torch.zeros(3, 16, 16)], 'data_samples': [0]}
    assert whole.model.data_preprocessor(batch, training=True)['inputs'].shape == (1, 3, 16, 16)


def test_all_processes_have_one_size(train, tmp_path):
    def work():
        runner = train('two', **config(launcher='pytorch', env_cfg={'dist_cfg': {'backend': 'gloo'}}))
        torch.save(runner.model.module.seen, tmp_path / f'seen.{dist.get_rank()}')
        dist.destroy_process_group()

    forks.as_ranks(work, 2)
    assert [torch.load(tmp_path / f'seen.{rank}') for rank in (0, 1)] == [
        [(size, size) for size in (SIZES * 6)[:17]]
    ] * 2


@pytest.mark.parametrize('shape', [(2, 3, 24, 20), (2, 3, 4, 24, 20), (2, 5, 3, 4, 24, 20)])
def test_each_image_and_frame_is_resized_as_pillow_does(shape):
    # Pillow cuts what overshoots after each axis, so nothing does
    images = torch.randint(64, 192, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocessor = ImageTextDataPreprocessor(mean=[0, 0, 0], std=[1, 1, 1])
    preprocessor.set_train_size(15)
    got = preprocessor({'inputs': images}, training=True)['inputs']
    assert got.shape == (*shape[:-2], 15, 15)
    frames = images if len(shape) == 4 else images.transpose(-4, -3)
    got = got if len(shape) == 4 else got.transpose(-4, -3)
    for frame, own in zip(frames.flatten(0, -4), got.flatten(0, -4), strict=True):
        expected = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((15, 15), Image.BICUBIC)
        expected = torch.tensor(list(expected.getdata())).view(15, 15, 3).permute(2, 0, 1)
        assert (own - expected).abs().max() <= 1.5  # which rounds twice
    assert preprocessor({'inputs': images})['inputs'].shape == shape
    edges = preprocessor({'inputs': (images > 128).byte() * 255}, training=True)['inputs']
    assert edges.min() == 0 and edges.max() == 255


@pytest.mark.parametrize('sizes', [[], [0, 8], 'all', [8.5], 224])
def test_no_sizes(sizes):
    with pytest.raises(ValueError, match='of ImageSizesHook must be numbers of pixels, at least one'):
        ImageSizesHook(sizes)


def test_a_preprocessor_that_does_not_resize():
    runner = SimpleNamespace(model=nn.Module(), iter=0)
    with pytest.raises(UsageError, match='NoneType of the model does not resize batches, which ImageSizesHook needs'):
        ImageSizesHook([8]).before_train_iter(runner, 0)
