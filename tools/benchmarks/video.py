"""Speed of Video Swin inference compared with mmaction2's, on shared weights.

python tools/benchmarks/video.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys

import torch
from common import Case, Pair, main
from torch import nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.backbones import VideoCoSwin
from florence_mm.models.checkpoints.formats import convert_state_dict


def _video_swin(frames: int, side: int) -> Pair:
    from mmaction.models import SwinTransformer3D

    torch.manual_seed(0)
    peer = SwinTransformer3D('tiny', pretrained2d=False)
    for name, parameter in peer.named_parameters():
        if name.endswith('bias_table'):
            nn.init.trunc_normal_(parameter, std=0.5)
    peer.eval()
    ours = VideoCoSwin('tiny', conv_embed=False).eval()
    ours.load_state_dict(convert_state_dict({k: v.clone() for k, v in peer.state_dict().items()})[1])
    x = torch.randn(1, 3, frames, side, side)
    without_grad = torch.inference_mode()
    return Pair(without_grad(lambda: ours(x)), without_grad(lambda: peer(x)))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('video_swin_tiny_16x112_infer', 1.5, lambda: _video_swin(16, 112), rounds=9),
        Case('video_swin_tiny_32x112_infer', 1.6, lambda: _video_swin(32, 112), rounds=9),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
