"""A model, a data set and a metric small enough to train in a second, in the shape a user's project has."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn


@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):
    """Sample ``i`` is ``i`` in all of 4 numbers, plus noise of all three global generators."""

    METAINFO = {'classes': ('even', 'odd')}

    def __init__(self, size: int = 23, noise: float = 0.1, bad: int | None = None) -> None:
        self.size, self.noise, self.bad = size, noise, bad
        self.metainfo = dict(self.METAINFO)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        if index == self.bad:
            raise ValueError(f'sample {int(index)} is bad')
        noise = np.random.randn() + random.random() + torch.randn(4)
        inputs = torch.full((4,), index / self.size) + self.noise * noise.float()
        return {'inputs': inputs, 'index': int(index)}


@MODELS.register_module()
class ToyModel(BaseModel):
    """A layer, dropout and a layer; predicts the number of the sample."""

    def __init__(self, width: int = 8, drop_rate: float = 0.5, nan_from: int | None = None, init_cfg=None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.fc = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(drop_rate), nn.Linear(width, 1))
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self.nan_from = nan_from
        self.steps = 0
        self.classes = None

    def set_classes(self, names: list, templates: list) -> None:
        self.classes = names, templates

    def forward(self, inputs, index, mode: str = 'tensor'):
        x = torch.stack(inputs)
        y = self.fc(x)[:, 0] * self.log_scale.exp()
        if mode == 'tensor':
            return y
        target = torch.tensor([float(i) for i in index]) / 10
        if mode == 'loss':
            self.steps += 1
            loss = (y - target).square().mean()
            return {'loss': loss * float('nan') if self.nan_from and self.steps >= self.nan_from else loss}
        return [{'error': (a - b).abs()} for a, b in zip(y, target, strict=True)]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Mean absolute error."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples) -> None:
        self.results += [float(sample['error']) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return {'mae': float(np.mean(results))}


@HOOKS.register_module()
class KillHook(Hook):
    """SIGKILL at the beginning of an iteration, or while a checkpoint is half written."""

    def __init__(self, at_iter: int | None = None, in_save: int | None = None, in_val: int | None = None) -> None:
        self.at_iter, self.in_save, self.in_val = at_iter, in_save, in_val

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at_iter:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_val(self, runner) -> None:
        if runner.iter == self.in_val:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        if runner.iter + 1 == self.in_save:

            def put_half(backend, content, path):
                Path(path).write_bytes(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

            LocalBackend.put = put_half


@HOOKS.register_module()
class TraceHook(Hook):
    """Remember what each iteration saw."""

    def before_train(self, runner) -> None:
        runner.trace = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        runner.trace.append((list(data_batch['index']), torch.stack(data_batch['inputs']).clone()))


def toy_config(work_dir, by_epoch: bool = False, workers: int = 0, **changes) -> dict:
    """A whole config; ``changes`` replace top-level keys."""
    loop = {'type': 'IterBasedTrainLoop', 'max_iters': 17, 'val_interval': 5}
    if by_epoch:
        loop = {'by_epoch': True, 'max_epochs': 3}
    loader = {
        'batch_size': 4,
        'num_workers': workers,
        'dataset': {'type': 'ToyData'},
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
    }
    val = {
        **loader,
        'dataset': {'type': 'ToyData', 'noise': 0.0},
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }
    config = {
        'default_scope': 'florence_mm',
        'custom_imports': {'imports': ['toy_project'], 'allow_failed_imports': False},
        'model': {'type': 'ToyModel'},
        'work_dir': str(work_dir),
        'train_dataloader': loader,
        'val_dataloader': val,
        'test_dataloader': val,
        'train_cfg': loop,
        'val_cfg': {},
        'test_cfg': {},
        'val_evaluator': {'type': 'ToyMetric'},
        'test_evaluator': {'type': 'ToyMetric'},
        'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.01}, 'clip_grad': {'max_norm': 1.0}},
        'param_scheduler': [{'type': 'CosineAnnealingLR', 'T_max': 17, 'by_epoch': False}],
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': 5},
            'checkpoint': {'type': 'CheckpointHook', 'interval': 5, 'by_epoch': False, 'max_keep_ckpts': 2},
        },
        'custom_hooks': [
            {'type': 'EMAHook', 'momentum': 0.1},
            {'type': 'TraceHook'},
        ],
        'randomness': {'seed': 3},
        'log_level': 'WARNING',
    }
    config.update(changes)
    return config
