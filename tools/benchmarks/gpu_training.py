"""Training steps as the configs have them, for gpu.py: throughput, memory, waits for the device, shares of kernels."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from gpu_common import Row, Setting, seconds_a_step
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

from florence_mm.config.load import load_config
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.hooks import InvalidLossHook

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PRETRAINING = CONFIGS / 'unicl/unicl_coswin-h_512xb48-1m_fld900m.py'
DETECTION = CONFIGS / 'dynamic_head/atss_coswin-t_fpn_dyhead_8xb4-1x_coco.py'
#: Operations of a pair, forward and backward, of CoSwin-H at 224 pixels and the text tower (docs/scaling.md).
PAIR_GFLOP = 540
#: Kinds of kernels by words in their names, the first that fits.
KINDS = {
    'matrix products': ('gemm', 'cutlass', 'cublas', 'nvjet', 'matmul', 'addmm', 'aten::mm', 'aten::bmm', 'linear'),
    'attention': ('fmha', 'flash', 'attention', 'efficient'),
    'norms': ('layer_norm', 'layernorm', 'group_norm', 'batch_norm'),
    'copies and permutations': (
        'memcpy',
        'memset',
        'copy',
        'index',
        'gather',
        'scatter',
        'cat',
        'transpose',
        'permute',
    ),
    'optimizer': ('adam', 'multi_tensor', 'foreach'),
    'element-wise': ('elementwise', 'vectorized', 'reduce', 'gelu', 'aten::add', 'aten::mul', 'triton'),
}


class Trainer:
    """A model of a config, its optimizer and a batch of drawn data; a call runs one training step and its hooks."""

    def __init__(self, cfg: Config, batch: dict, setting: Setting) -> None:
        torch.manual_seed(0)
        drop_pretrained(cfg.model, 'model')
        self.model: nn.Module = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.setting = setting
        self.hub = MessageHub.get_instance('florence_mm_gpu')
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.batch, self.check, self.done = batch, InvalidLossHook(), 0

    def recompute(self, on: bool) -> None:
        """Recompute the blocks in the backward pass, or keep their activations."""
        for module in self.model.modules():
            if 'with_cp' in vars(module):
                module.with_cp = on

    def compile_blocks(self) -> None:
        """Compile the repeated blocks."""
        self.setting.training(self.model)

    def __call__(self) -> None:
        """Run one step."""
        outputs = self.model.train_step(self.batch, self.wrapper)
        for name, value in outputs.items():
            self.hub.update_scalar(f'train/{name}', value)
        self.check.after_train_iter(SimpleNamespace(iter=self.done), self.done, outputs=outputs)
        self.done += 1


def pairs(count: int, side: int) -> dict:
    """Pictures of random pixels with texts of five to twenty words."""
    from mmpretrain.structures import DataSample

    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(count)]
    samples = []
    for number in range(count):
        sample = DataSample()
        sample.set_field('a photo of ' + 'some thing ' * (1 + number % 9), 'text')
        sample.set_field(number, 'label_key')
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


def scenes(count: int, size: tuple[int, int]) -> dict:
    """Pictures of random pixels, each with eight boxes of a quarter of its sides."""
    from mmdet.structures import DetDataSample

    height, width = size
    images, samples = [], []
    for _ in range(count):
        corners = torch.rand(8, 2) * torch.tensor([width * 0.7, height * 0.7])
        boxes = torch.cat([corners, corners + torch.tensor([width / 4, height / 4])], 1)
        meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
        samples.append(DetDataSample(metainfo=meta, gt_instances=InstanceData(bboxes=boxes, labels=torch.arange(8))))
        images.append(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    return {'inputs': images, 'data_samples': samples}


def waits(step: Callable[[], None], setting: Setting) -> Counter:
    """Operations of one step that wait for the GPU, by the line that asks, as torch tells them."""
    step()
    setting.wait()
    if setting.device.type != 'cuda':
        return Counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    places = (f'{Path(one.filename).name}:{one.lineno}' for one in said if 'synchronizing' in str(one.message))
    return Counter(places)


def shares(step: Callable[[], None], setting: Setting) -> dict[str, float]:
    """Shares of the device's time by kind of kernel, in one step."""
    from torch.profiler import ProfilerActivity, profile

    gpu = setting.device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        step()
        setting.wait()
    spent: Counter = Counter()
    for event in profiler.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), 'other')
        spent[kind] += event.self_device_time_total if gpu else event.self_cpu_time_total
    total = sum(spent.values()) or 1
    return {kind: amount / total for kind, amount in spent.most_common()}


def pretraining(setting: Setting) -> Iterator[Row]:
    """UniCL with CoSwin-H and its text tower, 893 M parameters, in bf16: pairs a second, memory, waits, shares."""
    cfg = load_config(PRETRAINING, None)
    if setting.tiny:
        cfg.merge_from_dict({'model': cfg.smoke.model})
    size = 4 if setting.tiny else cfg.train_dataloader.batch_size
    trainer = Trainer(cfg, pairs(size, 64 if setting.tiny else 224), setting)
    ways: tuple[tuple[str, Callable[[], None], float | None], ...] = (
        ('eager', lambda: None, None),
        ('blocks compiled', trainer.compile_blocks, 600),
        ('blocks compiled and recomputed', lambda: trainer.recompute(True), None),
    )
    for name, change, target in ways:
        change()
        setting.forget()
        rate = size / seconds_a_step(trainer, setting)
        words = (setting.share(rate * PAIR_GFLOP * 1e9), setting.memory())
        # the count of operations is that of the large model
        note = 'tiny' if setting.tiny else ', '.join(word for word in words if word)
        yield Row(f'UniCL training, batch {size}, {name}', rate, 'pairs/s', target, note)
        if name == 'eager':
            yield Row('UniCL training, waits of a step', **in_words(waits(trainer, setting)))
        if name != 'blocks compiled and recomputed':
            yield Row(f'UniCL training, {name}, time', note=percent(shares(trainer, setting)))


def detection(setting: Setting) -> Iterator[Row]:
    """Dynamic Head on CoSwin-T, trained on 800 x 1344 pixels: iterations a second, memory, waits, shares."""
    size, count = ((128, 160), 1) if setting.tiny else ((800, 1344), 4)
    cfg = load_config(DETECTION, None)
    if setting.tiny:
        cfg.model.backbone.arch = {'embed_dims': 32, 'depths': [1, 1, 1, 1], 'num_heads': [1, 2, 4, 8]}
        cfg.model.neck.in_channels = [64, 128, 256]
        cfg.model.bbox_head.num_blocks = 1
    cfg.optim_wrapper.type = 'florence_mm.FlorenceAmpOptimWrapper'
    setting.forget()
    trainer = Trainer(cfg, scenes(count, size), setting)
    rate = 1 / seconds_a_step(trainer, setting)
    yield Row(f'detector training, batch {count}, {size[0]} x {size[1]}', rate, 'it/s', note=setting.memory())
    yield Row("detector training, waits of a step, mmdet's included", **in_words(waits(trainer, setting)))
    yield Row('detector training, time', note=percent(shares(trainer, setting)))


def in_words(counts: Counter) -> dict[str, object]:
    """The number of waits, and the lines that ask for most of them, as values of a row."""
    return {'value': sum(counts.values()), 'note': ', '.join(f'{place} {n}' for place, n in counts.most_common(6))}


def percent(parts: dict[str, float]) -> str:
    """Shares in words."""
    return ', '.join(f'{kind} {share:.0%}' for kind, share in parts.items())
