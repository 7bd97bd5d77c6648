"""Speed of eager inference in bfloat16 compared with float32, and of encoders whose linear layers are quantized.

python tools/benchmarks/precision.py [--only NAME] [--rounds N] [--out FILE]

"Ours" is the model as ``precision='bf16'`` makes it, "peer" the same in float32; random weights. Outputs are compared
before anything is timed. Bars are for processors with AVX-512 bf16 or AMX; others convert, and are slower.
"""

import sys
from collections.abc import Callable
from copy import deepcopy

import torch
from common import Case, Pair, main
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.models.backbones import CLIPVisionTower, CoSwin, VideoCoSwin
from florence_mm.models.precision import use_bfloat16
from florence_mm.models.text import CLIPTextTower

_TOLERANCE = 0.1  # of the largest difference; bfloat16 has 8 bits, and outputs of norms are around 1


class _Encoder(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.backbone = encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.backbone(*inputs)
        return out[-1] if isinstance(out, tuple) else out


def _pair(make: Callable[[], nn.Module], *inputs: Tensor) -> Pair:
    torch.manual_seed(0)
    exact = _Encoder(make()).eval().requires_grad_(False)
    lowered = deepcopy(exact)
    use_bfloat16(lowered)

    def run(model: nn.Module) -> Callable[[], Tensor]:
        return torch.inference_mode()(lambda: model(*inputs))

    return Pair(run(lowered), run(exact), tolerance=_TOLERANCE)


def _quantized() -> Pair:
    torch.manual_seed(0)
    exact = _Encoder(CoSwin('tiny')).eval().requires_grad_(False)
    quantized = torch.ao.quantization.quantize_dynamic(deepcopy(exact), {nn.Linear}, torch.qint8)
    x = torch.randn(2, 3, 224, 224)
    calls = [torch.inference_mode()(lambda model=model: model(x)) for model in (quantized, exact)]
    return Pair(*calls, tolerance=0.05)


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    image, clip = torch.randn(2, 3, 224, 224), torch.randn(1, 3, 16, 112, 112)
    ids = torch.randint(1, 400, (8, 77))
    return [
        Case('coswin_t_bf16', 2.0, lambda: _pair(lambda: CoSwin('tiny'), image), rounds=15),
        Case('swin_t_bf16', 2.0, lambda: _pair(lambda: CoSwin('tiny', conv_embed=False), image), rounds=15),
        Case('video_coswin_t_bf16', 1.5, lambda: _pair(lambda: VideoCoSwin('tiny'), clip), rounds=7),
        Case('clip_vit_b_32_bf16', 1.8, lambda: _pair(lambda: CLIPVisionTower('base-32'), image), rounds=11),
        Case('clip_text_bf16', 1.8, lambda: _pair(lambda: CLIPTextTower('base'), ids), rounds=11),
        Case('coswin_t_quantize_dynamic', 1.8, _quantized, rounds=9),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
