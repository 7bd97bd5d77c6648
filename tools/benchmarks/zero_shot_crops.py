"""Speed of classifying proposals of several images together, compared with one image after the other.

    python tools/benchmarks/zero_shot_crops.py [--only NAME] [--rounds N] [--out FILE]

Both sides are `ZeroShotDetector`'s own: the features of all crops of a batch, and those of each image's crops alone,
which was the only way before. They are compared first. Together pays where an image has few proposals and a crop costs
little more than the call; with a CPU's CoSwin-T at 224 pixels, the crops' own arithmetic is all there is.
"""

import sys

import torch
from common import Case, Pair, main
from torch import nn

from florence_mm.models.algorithms import UniCL
from florence_mm.models.detectors import ZeroShotDetector
from florence_mm.registry import MODELS


class Proposer(nn.Module):
    """A detector that is never asked."""

    data_preprocessor = None

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Identity()


def _crops(arch: str, side: int, images: int, proposals: int) -> Pair:
    """Boxes of 20 to 220 pixels in images of 480x640, each cropped with contexts 1 and 1.5."""
    torch.manual_seed(0)
    text = {'type': 'CLIPTextTower', 'arch': 'micro'}
    towers = UniCL(MODELS.build({'type': 'CoSwin', 'arch': arch}), text, {'type': 'CLIPTokenizer'}, embed_dims=64)
    model = ZeroShotDetector(Proposer(), towers, crop_size=side).eval()
    pictures = [torch.rand(3, 480, 640) for _ in range(images)]
    corners = torch.rand(images, proposals, 2) * 300
    boxes = list(torch.cat([corners, corners + 20 + torch.rand(images, proposals, 2) * 200], 2))

    @torch.inference_mode()
    def together() -> torch.Tensor:
        return model._crop_features(pictures, boxes)

    @torch.inference_mode()
    def alone() -> torch.Tensor:
        return torch.cat([model._crop_features([one], [found]) for one, found in zip(pictures, boxes, strict=True)])

    return Pair(together, alone)


def cases() -> list[Case]:
    """The comparisons of this file."""
    sizes = (('micro', 32, 16, 3), ('micro', 32, 8, 20), ('tiny', 224, 2, 3))
    return [
        Case(f'{size[0]}_{size[1]}_{size[2]}_images_of_{size[3]}', 1.5, lambda size=size: _crops(*size), rounds=5)
        for size in sizes
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
