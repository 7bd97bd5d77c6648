"""Speed of a Dynamic Head block and mmdet's with the compiled mmcv: pyramid 32 to 2, 256 channels, shared weights.

PYTHONPATH=FOLDER python tools/benchmarks/dyhead.py [--only NAME] [--rounds N] [--out FILE]

FOLDER is where a wheel of the compiled mmcv 2.1.0 was unpacked (``python -m zipfile -e WHEEL FOLDER``).
"""

import sys

import torch
from common import Case, Pair, main
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.compat.mmcv_ext import is_compiled
from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.layers.dyhead_block import DyHeadBlock


def _blocks() -> tuple[nn.Module, nn.Module]:
    """Ours and mmdet's, with offsets of about a pixel."""
    from mmdet.models.necks.dyhead import DyHeadBlock as MMDetBlock

    if not is_compiled():
        raise ValueError('mmcv is not compiled; put the folder of an unpacked wheel into PYTHONPATH')
    torch.manual_seed(0)
    peer = MMDetBlock(256, 256, zero_init_offset=False)
    for parameter in peer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.03)
    _, state, _ = convert_state_dict({f'neck.dyhead_blocks.0.{k}': v for k, v in peer.state_dict().items()})
    ours = DyHeadBlock(offset_mode='legacy')
    ours.load_state_dict({k.removeprefix('bbox_head.blocks.0.'): v for k, v in state.items()})
    return ours, peer


def _pair(batch: int, train: bool) -> Pair:
    ours, peer = _blocks()
    feats = [torch.randn(batch, 256, side, side) for side in (32, 16, 8, 4, 2)]
    if not train:
        return Pair(torch.inference_mode()(lambda: ours(feats)), torch.inference_mode()(lambda: peer(feats)))
    grads = [torch.randn(feat.shape) for feat in feats]

    def step(block: nn.Module) -> list[Tensor]:
        block.zero_grad(set_to_none=True)
        leaves = [feat.clone().requires_grad_() for feat in feats]
        outs = block(leaves)
        torch.autograd.backward(outs, grads)
        return [*outs, *(leaf.grad for leaf in leaves)]

    return Pair(lambda: step(ours), lambda: step(peer))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case(
            f'dyhead_block_batch_{batch}_{kind}_vs_mmdet',
            bar,
            lambda b=batch, t=kind == 'train': _pair(b, t),
            rounds=11,
        )
        for kind, bar in (('infer', 1.7), ('train', 3.0))
        for batch in (1, 2)
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
