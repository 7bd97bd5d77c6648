"""Throughput of models beside their peers, eager and compiled, for gpu.py. Weights are random, data are drawn."""

from collections.abc import Callable, Iterator, Sequence

import torch
from gpu_common import Row, Setting, beside
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.compat.mmcv_ext import is_compiled
from florence_mm.engine.complexity import count_macs
from florence_mm.models.backbones import CoSwin, VideoCoSwin
from florence_mm.models.layers.dyhead_block import DyHeadBlock
from florence_mm.models.multimodal import METER
from florence_mm.models.text import CLIPTextTower
from florence_mm.ops.contrastive import unified_contrastive_loss

_TINY = {'embed_dims': 32, 'depths': [1, 1, 1, 1], 'num_heads': [1, 2, 4, 8]}
_BFLOAT16 = torch.bfloat16


def matrix_products(setting: Setting) -> Iterator[Row]:
    """The rate of bf16 matrix products, which other figures are shares of."""
    side = 256 if setting.tiny else 8192
    a, b = (torch.randn(side, side, device=setting.device, dtype=_BFLOAT16) for _ in range(2))
    for row in beside(
        f'bf16 product of {side} x {side}', {'torch': lambda: lambda: a @ b}, setting, 2e-12 * side**3, 'TFLOP/s'
    ):
        setting.peak = None if row.value is None else 1e12 * row.value
        yield row


def infer(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """A step of inference, with the model's weights in the type of ``x``."""
    return torch.inference_mode()(lambda: model(x))


def train(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A step forward and backward under autocast, without optimizer."""

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        with torch.autocast(x.device.type, _BFLOAT16):
            found = model(x)
        outs = found if isinstance(found, list | tuple) else [found]
        sum(out.float().square().mean() for out in outs).backward()

    return step


def _of(setting: Setting, *sizes: tuple[str, int]) -> Sequence[tuple[str, int]]:
    return sizes[:1] if setting.tiny else sizes  # small ones are all the same


def _coswin(arch: str, setting: Setting, **more: object) -> CoSwin:
    torch.manual_seed(0)
    return CoSwin(_TINY if setting.tiny else arch, img_size=_side(setting), drop_path_rate=0.0, **more)


def _side(setting: Setting) -> int:
    return 64 if setting.tiny else 224


def _batch(setting: Setting, count: int, dtype: torch.dtype) -> Tensor:
    count = 2 if setting.tiny else count
    return torch.randn(count, 3, _side(setting), _side(setting), device=setting.device, dtype=dtype)


def _flop(arch: str, setting: Setting, **more: object) -> float:
    """Operations of one picture, forward."""
    with torch.device('meta'):
        model = _coswin(arch, setting, **more)
        return 2 * count_macs(model, lambda: model(_meta_picture(setting)))['']


def _meta_picture(setting: Setting) -> Tensor:
    return torch.empty(1, 3, _side(setting), _side(setting), device='meta')


def _timm(arch: str, setting: Setting) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    if setting.tiny:
        sizes = {'embed_dim': 32, 'depths': (1, 1, 1, 1), 'num_heads': (1, 2, 4, 8), 'window_size': 2}
    else:
        wide = arch == 'base'
        heads = (4, 8, 16, 32) if wide else (3, 6, 12, 24)
        sizes = {'embed_dim': 128 if wide else 96, 'depths': (2, 2, 18 if wide else 6, 2), 'num_heads': heads}
    return SwinTransformer(img_size=_side(setting), num_classes=0, drop_path_rate=0.0, **sizes)


def swin_inference(setting: Setting) -> Iterator[Row]:
    """Swin-B and Swin-T in bf16 beside timm's."""
    for arch, count in _of(setting, ('base', 128), ('tiny', 256)):
        yield from _swin(arch, _batch(setting, count, _BFLOAT16), setting)


def _swin(arch: str, x: Tensor, setting: Setting) -> Iterator[Row]:
    def ours() -> nn.Module:
        return _coswin(arch, setting, conv_embed=False).to(setting.device, _BFLOAT16).eval()

    def peer() -> nn.Module:
        return _timm(arch, setting).to(setting.device, _BFLOAT16).eval()

    ways = {
        'compiled': lambda: infer(setting.inference(ours()), x),
        'timm, compiled': lambda: infer(setting.compiled(peer()), x),
        'eager': lambda: infer(ours(), x),
        'timm, eager': lambda: infer(peer(), x),
    }
    flop = len(x) * _flop(arch, setting, conv_embed=False)
    targets = {'compiled': ('timm, compiled', 1.0), 'eager': ('timm, eager', 1.0)}
    yield from beside(f'Swin-{arch[0].upper()}, inference', ways, setting, len(x), 'pictures/s', flop, targets)


def coswin(setting: Setting) -> Iterator[Row]:
    """CoSwin-T, B and H in bf16: inference, and a step forward and backward."""
    for arch, count in _of(setting, ('huge', 64), ('base', 128), ('tiny', 256)):
        yield from _coswin_rows(arch, count, setting)


def _coswin_rows(arch: str, count: int, setting: Setting) -> Iterator[Row]:
    def model() -> nn.Module:
        return _coswin(arch, setting).to(setting.device)

    name, flop = f'CoSwin-{arch[0].upper()}', _flop(arch, setting)
    x, y = _batch(setting, count, _BFLOAT16), _batch(setting, count // 2, torch.float32)
    ways = {
        'blocks compiled': lambda: infer(setting.training(model().to(_BFLOAT16).eval()), x),
        'eager': lambda: infer(model().to(_BFLOAT16).eval(), x),
    }
    yield from beside(f'{name}, inference', ways, setting, len(x), 'pictures/s', len(x) * flop)
    ways = {
        'blocks compiled': lambda: train(setting.training(model().train()), y),
        'eager': lambda: train(model().train(), y),
    }
    yield from beside(f'{name}, forward and backward', ways, setting, len(y), 'pictures/s', 3 * len(y) * flop)


def unicl_loss(setting: Setting) -> Iterator[Row]:
    """UniCL's loss of 32,768 pairs forward and backward, beside open_clip's."""
    pairs, width = (64, 16) if setting.tiny else (32_768, 1024)
    features = [F.normalize(torch.randn(pairs, width, device=setting.device), dim=1) for _ in range(2)]
    labels = torch.arange(pairs, device=setting.device)

    def step(loss: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            image, text = (feature.detach().requires_grad_() for feature in features)
            loss(image, text, torch.tensor(100.0, device=setting.device, requires_grad=True)).backward()

        return run

    def peer() -> Callable[[], None]:
        from open_clip.loss import ClipLoss

        return step(ClipLoss())

    ways = {'ours': lambda: step(lambda i, t, s: sum(unified_contrastive_loss(i, t, labels, s))), 'open_clip': peer}
    # one product forward, its recomputation and two products backward
    flop = 8 * pairs**2 * width
    yield from beside(f'loss of {pairs:,} pairs', ways, setting, flop=flop, targets={'ours': ('open_clip', 1.5)})


def text_tower(setting: Setting) -> Iterator[Row]:
    """CLIP's text tower in bf16, beside open_clip's: full texts of 77 tokens."""
    sizes = {'embed_dims': 32, 'num_layers': 1, 'num_heads': 2} if setting.tiny else 'base'
    words = 600 if setting.tiny else 49_408
    ids = torch.randint(1, words - 2, (2 if setting.tiny else 256, 77))
    ids[:, -1] = words - 1
    ids = ids.to(setting.device)

    def ours() -> nn.Module:
        model = CLIPTextTower(sizes, vocab_size=words)
        return model.to(setting.device, _BFLOAT16).eval()

    def peer() -> nn.Module:
        from open_clip.transformer import TextTransformer

        more = {'width': 32, 'layers': 1, 'heads': 2, 'vocab_size': words} if setting.tiny else {}
        return TextTransformer(output_dim=None, **more).to(setting.device, _BFLOAT16).eval()

    ways = {
        'compiled': lambda: infer(setting.inference(ours()), ids),
        'open_clip, compiled': lambda: infer(setting.compiled(peer()), ids),
        'eager': lambda: infer(ours(), ids),
        'open_clip, eager': lambda: infer(peer(), ids),
    }
    yield from beside('text tower, inference', ways, setting, len(ids), 'texts/s')


def dynamic_head(setting: Setting) -> Iterator[Row]:
    """A Dynamic Head block on the pyramid of 800 x 1344 pixels, beside mmdet's with the compiled mmcv."""
    width = 16 if setting.tiny else 256
    sizes = [(8, 8), (4, 4)] if setting.tiny else [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    maps = [torch.randn(1 if setting.tiny else 2, width, *size, device=setting.device) for size in sizes]

    def ours() -> nn.Module:
        return DyHeadBlock(width).to(setting.device)

    def peer() -> nn.Module:
        from mmdet.models.necks.dyhead import DyHeadBlock as MMDetBlock

        if not is_compiled():
            raise ImportError('mmdet has its own deformable convolution only with the compiled mmcv')
        return MMDetBlock(width, width).to(setting.device)

    for kind, step in (('inference', _infer_maps), ('forward and backward', _train_maps)):
        ways = {
            'compiled': lambda step=step: step(setting.compiled(ours()), maps),
            'eager': lambda step=step: step(ours(), maps),
            'mmdet, eager': lambda step=step: step(peer(), maps),
        }
        yield from beside(f'Dynamic Head block, {kind}', ways, setting, len(maps[0]), 'pictures/s')


def _infer_maps(block: nn.Module, maps: list[Tensor]) -> Callable[[], object]:
    block.eval()
    return torch.inference_mode()(lambda: block(maps))


def _train_maps(block: nn.Module, maps: list[Tensor]) -> Callable[[], None]:
    def step() -> None:
        outs = block([one.detach().requires_grad_() for one in maps])
        sum(out.square().mean() for out in outs).backward()

    return step


def video(setting: Setting) -> Iterator[Row]:
    """Video Swin-T in bf16 on clips of 32 frames of 224 pixels, beside mmaction2's."""
    frames, side, count = (4, 64, 1) if setting.tiny else (32, 224, 8)
    x = torch.randn(count, 3, frames, side, side, device=setting.device, dtype=_BFLOAT16)

    def ours() -> nn.Module:
        model = VideoCoSwin(_TINY if setting.tiny else 'tiny', conv_embed=False)
        return model.to(setting.device, _BFLOAT16).eval()

    def peer() -> Callable[[], object]:
        from mmaction.models import SwinTransformer3D

        model = SwinTransformer3D('tiny', pretrained2d=False).to(setting.device)
        model.eval()  # its `train` returns nothing
        step = infer(model, x.float())

        def run() -> object:
            with torch.autocast(setting.device.type, _BFLOAT16):  # its mask of windows is fp32, whatever the weights
                return step()

        return run

    ways = {
        'compiled': lambda: infer(setting.inference(ours()), x),
        'eager': lambda: infer(ours(), x),
        'mmaction2, eager, autocast': peer,
    }
    yield from beside('Video Swin-T, inference', ways, setting, count, 'clips/s')


def _meter(setting: Setting, **more: object) -> METER:
    torch.manual_seed(0)
    if setting.tiny:
        model = METER(
            image_encoder={'type': 'CoSwin', 'arch': _TINY, 'img_size': 64},
            text_encoder={'type': 'CLIPTokenEncoder', 'tower': {'arch': 'micro', 'vocab_size': 4096}},
            tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': 4096},
            fusion={'hidden_size': 32, 'num_layers': 1, 'num_heads': 2},
            **more,
        )
    else:
        model = METER(
            image_encoder={'type': 'CoSwin', 'arch': 'tiny', 'img_size': 224},
            text_encoder={'type': 'RobertaTextEncoder', 'config': {}},
            tokenizer={'type': 'RobertaTextTokenizer'},
            **more,
        )
    return model.to(setting.device).eval()


def meter(setting: Setting) -> Iterator[Row]:
    """METER-CoSwin-T in bf16: pictures and questions of twelve words read and fused. No installed package has METER."""
    x = _batch(setting, 64, torch.float32)
    words = [f'what is {"very " * (number % 5)}near the thing number {number} of it?' for number in range(len(x))]

    def step(model: METER) -> Callable[[], object]:
        tokens = model.tokenize(words)

        def run() -> object:
            with torch.inference_mode(), torch.autocast(setting.device.type, _BFLOAT16):
                return model.fuse(model.encode_tokens(tokens), tokens.mask, model.encode_image(x))

        return run

    ways = {'compiled': lambda: step(setting.inference(_meter(setting))), 'eager': lambda: step(_meter(setting))}
    yield from beside('METER-CoSwin-T, inference', ways, setting, len(x), 'pairs/s')


def captions(setting: Setting) -> Iterator[Row]:
    """Captions of 20 tokens by METER-CoSwin-T, three beams, with and without cached keys and values."""
    vocabulary = {} if setting.tiny else {'vocab_size': 50_265}
    tokens = 4 if setting.tiny else 20
    model = _meter(setting, heads={'caption': {'type': 'FusionCaptionHead', 'num_beams': 3, **vocabulary}})
    head = model.heads.caption
    head.min_length = head.max_length = tokens
    x = _batch(setting, 16, torch.float32)

    def step(cached: bool) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return head.decode(model, model.encode_image(x), cached=cached)

        return run

    ways = {'eager, cached': lambda: step(True), 'eager, recomputed': lambda: step(False)}
    yield from beside(f'captions of {tokens} tokens', ways, setting, len(x), 'pictures/s')
