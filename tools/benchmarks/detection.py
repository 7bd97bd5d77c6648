"""Speed of detection operators compared with the compiled mmcv.

PYTHONPATH=FOLDER python tools/benchmarks/detection.py [--only NAME] [--rounds N] [--out FILE]

FOLDER is where a wheel of the compiled mmcv 2.1.0 was unpacked (``python -m zipfile -e WHEEL FOLDER``).
"""

import sys
from collections.abc import Callable, Sequence

import torch
from common import Case, Pair, main
from torch import Tensor

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.compat.mmcv_ext import is_compiled
from florence_mm.ops.boxes import nms
from florence_mm.ops.deform_conv import modulated_deform_conv2d
from florence_mm.ops.roi_align import roi_align


def _sides(ours: Callable[..., Tensor], peer: Callable[..., Tensor], tensors: Sequence[Tensor], train: bool) -> Pair:
    """Both functions on the same tensors; with all their gradients where ``train``."""
    if not is_compiled():
        raise ValueError('mmcv is not compiled; put the folder of an unpacked wheel into PYTHONPATH')
    if not train:
        return Pair(torch.inference_mode()(lambda: ours(*tensors)), torch.inference_mode()(lambda: peer(*tensors)))
    leaves = [t.requires_grad_() for t in tensors]
    grad = torch.randn(ours(*leaves).shape)

    def step(function: Callable[..., Tensor]) -> list[Tensor]:
        out = function(*leaves)
        return [out, *torch.autograd.grad(out, leaves, grad)]

    return Pair(lambda: step(ours), lambda: step(peer))


def _deform_conv(train: bool) -> Pair:
    """3x3, 256 channels in and out, offsets of about two pixels."""
    from mmcv.ops import modulated_deform_conv2d as peer

    torch.manual_seed(0)
    tensors = [
        torch.randn(2, 256, 25, 38),
        torch.randn(2, 18, 25, 38) * 2,
        torch.rand(2, 9, 25, 38),
        torch.randn(256, 256, 3, 3) * 0.02,
        torch.randn(256),
    ]
    return _sides(lambda *t: modulated_deform_conv2d(*t, 1, 1), lambda *t: peer(*t, 1, 1), tensors, train)


def _roi_align(ratio: int, train: bool) -> Pair:
    """500 regions of 20 to 320 pixels on a map of stride 8."""
    from mmcv.ops import roi_align as peer

    torch.manual_seed(0)
    corner = torch.rand(500, 2) * 400
    rois = torch.cat([torch.randint(0, 2, (500, 1)), corner, corner + 20 + torch.rand(500, 2) * 300], 1)
    call = (rois, (7, 7), 0.125, ratio)
    return _sides(lambda x: roi_align(x, *call), lambda x: peer(x, *call), [torch.randn(2, 256, 50, 68)], train)


def _nms(count: int) -> Pair:
    """Boxes of up to 600 pixels in an image of 1000, of which about half are kept."""
    from mmcv.ops import nms as peer

    torch.manual_seed(0)
    corner = torch.rand(count, 2) * 1000
    # no equal scores: their order is the compiled sort's own
    tensors = [torch.cat([corner, corner + torch.rand(count, 2) * 600], 1), torch.randperm(count) / count]
    return _sides(lambda *t: nms(*t, 0.6), lambda *t: peer(*t, 0.6)[1], tensors, train=False)


def cases() -> list[Case]:
    """The comparisons of this file. The compiled NMS is a tight loop: the bar is not to be far slower."""
    kinds = (('infer', False), ('train', True))
    bars = {'infer': 2.0, 'train': 4.5}
    return [
        *(Case(f'deform_conv_25x38_{k}_vs_mmcv', bars[k], lambda t=t: _deform_conv(t), rounds=15) for k, t in kinds),
        *(
            Case(f'roi_align_ratio_{r}_{k}_vs_mmcv', 1.0, lambda r=r, t=t: _roi_align(r, t), rounds=5)
            for r in (0, 2)
            for k, t in kinds
        ),
        *(Case(f'nms_{n}_boxes_vs_mmcv', 0.3, lambda n=n: _nms(n), rounds=11) for n in (1000, 5000)),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
