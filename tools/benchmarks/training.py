"""Speed of training steps beside timm and open_clip, on shared weights: forward, loss and backward, no optimizer.

    python tools/benchmarks/training.py [--only NAME] [--rounds N] [--out FILE]

Swin-T is compared with timm's. UniCL is compared with what an open_clip user runs: a ``CustomTextCLIP`` with timm's
Swin-T and open_clip's text tower (12 layers, 512 channels, all 77 tokens of each text), and ``ClipLoss``; for CoSwin-T,
timm's blocks get CoSwin's convolutional embeddings. Texts are eight captions, which both sides tokenize before.
bfloat16 is autocast's, on both sides. Stochastic depth is off, as it is random. What is compared first are the outputs
and the gradients of all parameters, each relative to its own norm.
"""

import re
import sys
from collections.abc import Callable

import torch
from common import Case, Pair, main
from language import CAPTIONS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin
from florence_mm.models.backbones.stages import ConvEmbed
from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer

TIMM_SWIN = 'swin_tiny_patch4_window7_224'
# of what is compared: rounding in float32, and what autocast's bfloat16 makes of it
_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.2}


class _EmbedLastChannels(nn.Module):
    """CoSwin's convolutional embedding on timm's maps ``(B, H, W, C)``; the stem gets an image ``(B, 3, H, W)``."""

    def __init__(self, embed: ConvEmbed, stem: bool) -> None:
        super().__init__()
        self.proj, self.norm, self.stem = embed.proj, embed.norm, stem

    def forward(self, x: Tensor) -> Tensor:
        """Embed, to ``(B, H', W', C')``."""
        return self.norm(self.proj(x if self.stem else x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def _image_towers(conv_embed: bool) -> tuple[CoSwin, nn.Module]:
    """Ours and timm's (Co)Swin-T with the same weights."""
    import timm

    peer = timm.create_model(TIMM_SWIN, num_classes=0, drop_path_rate=0.0)
    ours = CoSwin('tiny', conv_embed=conv_embed, drop_path_rate=0.0)
    state = convert_state_dict({k: v.clone() for k, v in peer.state_dict().items()})[1]
    if conv_embed:
        own = {k: v for k, v in ours.state_dict().items() if 'patch_embed' in k or 'downsample' in k}
        state = {k: v for k, v in state.items() if k.split('.')[0] != 'patch_embed' and 'downsample' not in k} | own
        twin = CoSwin('tiny', drop_path_rate=0.0)
        twin.load_state_dict(state)
        peer.patch_embed = _EmbedLastChannels(twin.patch_embed, stem=True)
        for stage, before in zip(peer.layers[1:], twin.layers, strict=False):
            stage.downsample = _EmbedLastChannels(before.downsample, stem=False)
    ours.load_state_dict(state)
    return ours.train(), peer.train()


def _by_name(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for _, parameter in sorted(module.named_parameters())]


def _matching(ours: CoSwin, peer: nn.Module, conv_embed: bool) -> list[nn.Parameter]:
    """timm's parameters in the order of :func:`_by_name` of ours, by the conversion of its checkpoints."""
    if not conv_embed:
        state = convert_state_dict(dict(peer.named_parameters()))[1]
        return [state[name] for name in sorted(dict(ours.named_parameters()))]
    parameters = dict(peer.named_parameters())
    moved = {}
    for name, _ in ours.named_parameters():
        stage = re.match(r'layers\.(\d)\.downsample', name)
        moved[name] = f'layers.{int(stage[1]) + 1}{name[8:]}' if stage else name
    return [parameters[moved[name]] for name in sorted(moved)]


class _Step:
    """Forward, loss and backward of one side; a call returns what the forward pass does.

    Args:
        parameters: parameters, in the same order on both sides.
        forward: returns tensors for ``loss``, and the loss.
    """

    def __init__(self, parameters: list[nn.Parameter], forward: Callable[[], tuple[Tensor, list[Tensor]]]) -> None:
        self.parameters, self.forward = parameters, forward

    def __call__(self, dtype: torch.dtype) -> list[Tensor]:
        for parameter in self.parameters:
            parameter.grad = None
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            loss, out = self.forward()
        loss.backward()
        return out

    def gradients(self, dtype: torch.dtype) -> list[Tensor]:
        """The gradients of a step."""
        self(dtype)
        return [parameter.grad.double() for parameter in self.parameters]


def _pair(name: str, ours: _Step, peer: _Step, dtype: torch.dtype) -> Pair:
    """Compare gradients with the peer's in float32, which bfloat16's of ours may miss as far as the peer's do."""
    exact = peer.gradients(torch.float32)

    def error(step: _Step) -> float:
        found = step.gradients(dtype)
        missed = sum((a - b).square().sum().item() for a, b in zip(found, exact, strict=True))
        return (missed / sum(b.square().sum().item() for b in exact)) ** 0.5

    errors = error(ours), error(peer)
    print(f"{name}: relative error of the gradients {errors[0]:.2e}, of the peer's {errors[1]:.2e}")
    if errors[0] > max(1e-4, 1.1 * errors[1]):
        raise ValueError(f'{name}: the gradients differ; nothing was timed')
    return Pair(lambda: ours(dtype), lambda: peer(dtype), _TOLERANCES[dtype])


def _swin(batch: int, dtype: torch.dtype) -> Pair:
    """Swin-T, from the gradient of its last map."""
    torch.manual_seed(0)
    ours, peer = _image_towers(conv_embed=False)
    x, slope = torch.randn(batch, 3, 224, 224), torch.randn(batch, 768, 7, 7)

    def ours_forward() -> tuple[Tensor, list[Tensor]]:
        out = ours(x)[0]
        return (out * slope).sum(), [out]

    def peer_forward() -> tuple[Tensor, list[Tensor]]:
        out = peer.forward_features(x).permute(0, 3, 1, 2)
        return (out * slope).sum(), [out]

    steps = _Step(_by_name(ours), ours_forward), _Step(_matching(ours, peer, False), peer_forward)
    return _pair(f'Swin-T, batch {batch}, {dtype}', *steps, dtype)


def _unicl(conv_embed: bool, dtype: torch.dtype) -> Pair:
    """UniCL on eight images and captions; every caption is another, so that its loss is twice CLIP's."""
    from open_clip import ClipLoss, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    torch.manual_seed(0)
    vision = CLIPVisionCfg(timm_model_name=TIMM_SWIN, timm_pool='avg', timm_proj='linear', image_size=224)
    peer = CustomTextCLIP(512, vision, CLIPTextCfg())
    image, peer.visual.trunk = _image_towers(conv_embed)
    ours = UniCL(image, CLIPTextTower('base', act='gelu', norm_eps=1e-5), CLIPTokenizer(), logit_scale_init=2.659)
    names = {'logit_scale': 'logit_scale', 'text_projection': 'text.text_projection'}
    for name in (name for name, _ in ours.text_encoder.named_parameters()):
        names[f'text_encoder.{name}'] = f'text.{name.replace("resblocks", "transformer.resblocks")}'
    own, others = dict(ours.named_parameters()), dict(peer.named_parameters())
    with torch.no_grad():
        for name, other in names.items():
            own[name].copy_(others[other])
        ours.image_projection.copy_(peer.visual.head.proj.weight.t())
    trunks = zip(_by_name(image), _matching(image, peer.visual.trunk, conv_embed), strict=True)
    pairs = [(own[name], others[other]) for name, other in names.items()] + list(trunks)
    samples = [DataSample(text=text, label_key=i) for i, text in enumerate(CAPTIONS)]
    images, ids, clip_loss = torch.randn(8, 3, 224, 224), ours.tokenizer(CAPTIONS), ClipLoss()
    ours.tokenizer = lambda texts: ids

    def ours_forward() -> tuple[Tensor, list[Tensor]]:
        losses = ours.loss(images, samples)
        loss = losses['loss_i2t'] + losses['loss_t2i']
        return loss, [loss]

    def peer_forward() -> tuple[Tensor, list[Tensor]]:
        loss = 2 * clip_loss(*peer(images, ids))
        return loss, [loss]

    steps = (_Step([p[i] for p in pairs], call) for i, call in enumerate((ours_forward, peer_forward)))
    return _pair(f'UniCL, {"CoSwin-T" if conv_embed else "Swin-T"}, {dtype}', *steps, dtype)


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    fp32, bf16 = torch.float32, torch.bfloat16
    return [
        Case('unicl_coswin_tiny_train_vs_open_clip', 1.5, lambda: _unicl(True, fp32), rounds=5),
        Case('unicl_coswin_tiny_train_bf16_vs_open_clip', 1.5, lambda: _unicl(True, bf16), rounds=5),
        Case('unicl_swin_tiny_train_vs_open_clip', 1.5, lambda: _unicl(False, fp32), rounds=5),
        Case('unicl_swin_tiny_train_bf16_vs_open_clip', 1.5, lambda: _unicl(False, bf16), rounds=5),
        Case('swin_tiny_224_train_vs_timm', 1.05, lambda: _swin(2, fp32), rounds=9),
        Case('swin_tiny_224_train_bf16_vs_timm', 1.10, lambda: _swin(2, bf16), rounds=9),
        Case('swin_tiny_224_b8_train_vs_timm', 1.05, lambda: _swin(8, fp32), rounds=5),
        Case('swin_tiny_224_b8_train_bf16_vs_timm', 1.10, lambda: _swin(8, bf16), rounds=5),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
