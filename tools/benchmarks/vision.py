"""Speed of Swin and window attention compared with mmpretrain and timm, on shared weights.

python tools/benchmarks/vision.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from common import Case, Pair, main
from torch import nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.backbones import CLIPVisionTower, CoSwin
from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.layers.swin import WindowAttention
from florence_mm.ops.windows import window_plan


def _without_grad(call: Callable[[], Any]) -> Callable[[], Any]:
    return torch.inference_mode()(call)


def _share(ours: nn.Module, peer: nn.Module) -> None:
    """The peer's weights in our model; every parameter must be found."""
    _, state, _ = convert_state_dict({k: v.clone() for k, v in peer.state_dict().items()})
    ours.load_state_dict(state)


def _swin_vs_mmpretrain() -> Pair:
    from mmpretrain.models import SwinTransformer

    torch.manual_seed(0)
    peer = SwinTransformer('tiny')
    peer.eval()
    ours = CoSwin('tiny', conv_embed=False).eval()
    _share(ours, peer)
    x = torch.randn(2, 3, 224, 224)
    return Pair(_without_grad(lambda: ours(x)), _without_grad(lambda: peer(x)))


def _swin_vs_timm(batch: int, size: int, window: int) -> Pair:
    import timm

    torch.manual_seed(0)
    name = 'swin_tiny_patch4_window7_224'
    peer = timm.create_model(name, img_size=size, window_size=window, num_classes=0).eval()
    ours = CoSwin('tiny', img_size=size, window_size=window, conv_embed=False).eval()
    _share(ours, peer)
    x = torch.randn(batch, 3, size, size)
    # timm keeps channels last
    return Pair(
        _without_grad(lambda: ours(x)), _without_grad(lambda: peer.forward_features(x).permute(0, 3, 1, 2).contiguous())
    )


def _attention(batch: int, side: int, channels: int, heads: int, window: int, train: bool) -> Pair:
    """One shifted window attention with its projection, no residual, as mmpretrain's ``ShiftWindowMSA``."""
    from mmpretrain.models.utils import ShiftWindowMSA

    torch.manual_seed(0)
    shift = window // 2
    peer = ShiftWindowMSA(channels, heads, window, shift).train(train)
    ours = WindowAttention(channels, heads, (window, window)).train(train)
    nn.init.trunc_normal_(peer.w_msa.relative_position_bias_table, std=0.5)
    state = peer.w_msa.state_dict()
    state.pop('relative_position_index')
    ours.load_state_dict(state)
    size = (side, side)
    x = torch.randn(batch, side * side, channels)
    if not train:

        def infer() -> torch.Tensor:
            return ours(x, window_plan(size, (window, window), (shift, shift)))

        return Pair(_without_grad(infer), _without_grad(lambda: peer(x, size)))

    grad = torch.randn(batch, side * side, channels)

    def step(module: nn.Module, call: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        module.zero_grad(set_to_none=True)
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        out.backward(grad)
        return [out, leaf.grad, *(p.grad for _, p in sorted(module.named_parameters()))]

    def ours_step() -> list[torch.Tensor]:
        return step(ours, lambda leaf: ours(leaf, window_plan(size, (window, window), (shift, shift))))

    return Pair(ours_step, lambda: step(peer, lambda leaf: peer(leaf, size)))


def _clip_vs_open_clip(arch: str, batch: int, act: str = 'quick_gelu') -> Pair:
    """CLIP's image tower on 224 pixels, class token before the projection, in inference."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    torch.manual_seed(0)
    ours = CLIPVisionTower(arch, act=act).eval()
    sizes = (224, ours.patch_size, ours.embed_dims, ours.num_layers, ours.num_heads, 4)
    act_layer = QuickGELU if act == 'quick_gelu' else nn.GELU
    peer = VisionTransformer(*sizes, act_layer=act_layer).eval()
    peer.proj = None
    peer.load_state_dict({k.replace('resblocks', 'transformer.resblocks'): v for k, v in ours.state_dict().items()})
    x = torch.randn(batch, 3, 224, 224)
    return Pair(_without_grad(lambda: ours(x)[0]), _without_grad(lambda: peer(x)))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('swin_tiny_224_infer_vs_mmpretrain', 1.15, _swin_vs_mmpretrain),
        Case('swin_tiny_224_infer_vs_timm', 1.0, lambda: _swin_vs_timm(2, 224, 7)),
        Case('swin_tiny_384_w12_infer_vs_timm', 1.25, lambda: _swin_vs_timm(1, 384, 12), rounds=15),
        Case('clip_vit_b32_infer_vs_open_clip', 1.0, lambda: _clip_vs_open_clip('base-32', 8)),
        Case('clip_vit_b16_infer_vs_open_clip', 1.0, lambda: _clip_vs_open_clip('base-16', 2), rounds=15),
        Case('clip_vit_b16_gelu_infer_vs_open_clip', 1.0, lambda: _clip_vs_open_clip('base-16', 2, 'gelu'), rounds=15),
        Case('window_attention_56_w7_infer', 1.4, lambda: _attention(4, 56, 96, 3, 7, train=False)),
        Case('window_attention_96_w12_infer', 1.4, lambda: _attention(1, 96, 128, 4, 12, train=False)),
        Case('window_attention_56_w7_train', 1.0, lambda: _attention(4, 56, 96, 3, 7, train=True)),
        Case('window_attention_96_w12_train', 1.0, lambda: _attention(1, 96, 128, 4, 12, train=True)),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
