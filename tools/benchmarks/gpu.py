"""First figures of a GPU in one call of less than ten minutes: waits, throughput, memory and shares of time.

    python tools/benchmarks/gpu.py [--seconds 540] [--only pretraining]
    python tools/benchmarks/gpu.py --tiny          # the same calls on small models, also without a GPU, to try them

Data are drawn, so that loading them costs nothing. Each part prints its figures as it has them; a part that fails, or
for which no time is left, says so in a sentence, and the next one begins. Predictions are in `docs/scaling.md`.
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.load import load_config
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.hooks import InvalidLossHook
from florence_mm.engine.memory import BLOCKS
from florence_mm.engine.parallelize import parallelize

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


@dataclass(frozen=True)
class Setting:
    """Where and how long the parts run.

    Attributes:
        device: the GPU, or the CPU.
        tiny: small models and pictures.
        until: time at which no other part begins, of ``time.monotonic``.
    """

    device: torch.device
    tiny: bool
    until: float

    @property
    def steps(self) -> int:
        """Timed steps of a part."""
        return 2 if self.tiny else 12

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()


class Trainer:
    """A model of a config, its optimizer and a batch of drawn data; a call runs one training step and its hooks."""

    def __init__(
        self, cfg: Config, batch: dict, setting: Setting, compiled: bool = False, recompute: bool = False
    ) -> None:
        torch.manual_seed(0)
        drop_pretrained(cfg.model, 'model')
        self.model: nn.Module = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        for module in self.model.modules():
            if 'with_cp' in vars(module):
                module.with_cp = recompute
        if compiled:
            kinds = {type(module).__name__ for module in self.model.modules()}
            parallelize(
                self.model,
                sorted(kinds & set(BLOCKS)),
                compile={'backend': 'eager'} if setting.tiny else True,
            )
        self.hub = MessageHub.get_instance('florence_mm_gpu')
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.batch, self.check, self.done = batch, InvalidLossHook(), 0

    def __call__(self) -> None:
        """Run one step."""
        outputs = self.model.train_step(self.batch, self.wrapper)
        for name, value in outputs.items():
            self.hub.update_scalar(f'train/{name}', value)
        self.check.after_train_iter(SimpleNamespace(iter=self.done), self.done, outputs=outputs)
        self.done += 1


def pretraining_config(setting: Setting) -> tuple[Config, int]:
    """UniCL with CoSwin-H, and its batch size."""
    cfg = load_config(PRETRAINING, None)
    if setting.tiny:
        cfg.merge_from_dict({'model': cfg.smoke.model})
    return cfg, 4 if setting.tiny else cfg.train_dataloader.batch_size


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


def seconds_a_step(step: Callable[[], None], setting: Setting, warm_up: int = 3) -> float:
    """Mean seconds of a step after the warm-up, the device waited for at both ends alone."""
    for _ in range(1 if setting.tiny else warm_up):
        step()
    setting.wait()
    start = time.perf_counter()
    for _ in range(setting.steps):
        step()
    setting.wait()
    return (time.perf_counter() - start) / setting.steps


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


def pretraining(setting: Setting) -> Iterator[str]:
    """UniCL with CoSwin-H in bfloat16: waits, pairs a second, memory, shares."""
    side = 64 if setting.tiny else 224
    for name, options in (
        ('eager', {}),
        ('eager, blocks recomputed', {'recompute': True}),
        ('blocks compiled', {'compiled': True}),
    ):
        cfg, size = pretraining_config(setting)
        if setting.device.type == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trainer = Trainer(cfg, pairs(size, side), setting, **options)
        seconds = seconds_a_step(trainer, setting)
        rate = size / seconds
        line = f'UniCL, batch {size}, {name}: {rate:.1f} pairs/s, {rate * PAIR_GFLOP / 1e3:.0f} TFLOP/s'
        if setting.device.type == 'cuda':
            line += f', peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB'
        yield line if not setting.tiny else line.partition(',')[0] + f', {name}: {rate:.1f} pairs/s (tiny)'
        if not options:
            yield _in_words('UniCL: waits of a step', waits(trainer, setting))
            yield _percent('UniCL: time', shares(trainer, setting))
        elif options.get('compiled'):
            yield _percent('UniCL, compiled: time', shares(trainer, setting))
        del trainer
        if time.monotonic() > setting.until:
            yield 'UniCL: no time is left for the other ways'
            return


def detection(setting: Setting) -> Iterator[str]:
    """Dynamic Head on CoSwin-T with 800 x 1344 pixels: waits, iterations a second, memory, shares."""
    size, count = ((128, 160), 1) if setting.tiny else ((800, 1344), 4)
    cfg = load_config(DETECTION, None)
    if setting.tiny:
        cfg.model.backbone.arch = {'embed_dims': 32, 'depths': [1, 1, 1, 1], 'num_heads': [1, 2, 4, 8]}
        cfg.model.neck.in_channels = [64, 128, 256]
        cfg.model.bbox_head.num_blocks = 1
    cfg.optim_wrapper.type = 'florence_mm.FlorenceAmpOptimWrapper'
    if setting.device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(cfg, scenes(count, size), setting)
    line = f'detector, batch {count}, {size[0]} x {size[1]}: {1 / seconds_a_step(trainer, setting):.2f} it/s'
    if setting.device.type == 'cuda':
        line += f', peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB'
    yield line
    yield _in_words("detector: waits of a step, mmdet's included", waits(trainer, setting))
    yield _percent('detector: time', shares(trainer, setting))


def _in_words(what: str, counts: Counter) -> str:
    return f'{what}: {sum(counts.values())} {dict(counts.most_common(6)) or ""}'.rstrip()


def _percent(what: str, parts: dict[str, float]) -> str:
    return f'{what}: ' + ', '.join(f'{kind} {share:.0%}' for kind, share in parts.items())


PARTS: dict[str, Callable[[Setting], Iterator[str]]] = {'pretraining': pretraining, 'detection': detection}


def main() -> int:
    """Command line; exit status 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=540, help='no part begins after as many (default: 540)')
    parser.add_argument('--only', choices=PARTS, help='one part')
    parser.add_argument('--tiny', action='store_true', help='small models, to try the calls, also on a CPU')
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.tiny:
        print('torch finds no GPU, so there is nothing to measure; --tiny tries the calls on the CPU')
        return 0
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if device.type == 'cuda':
        torch.backends.cuda.matmul.allow_tf32 = True
        print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}')
    MMLogger.get_instance('mmengine', log_level='WARNING')  # it lists each initialised weight
    init_default_scope('florence_mm')
    setting = Setting(device, args.tiny, time.monotonic() + args.seconds)
    failed = False
    for name, part in PARTS.items():
        if args.only not in (None, name):
            continue
        if time.monotonic() > setting.until:
            print(f'{name}: no time is left; run it with --only {name}')
            continue
        try:
            for line in part(setting):
                print(line, flush=True)
        except (RuntimeError, ValueError, TypeError) as error:  # out of memory included
            failed = True
            print(f'{name}: failed, {type(error).__name__}: {str(error).strip().splitlines()[0]}', flush=True)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
