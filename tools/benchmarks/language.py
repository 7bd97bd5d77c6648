"""Speed of contrastive loss, text tower and tokenizer compared with open_clip's, on the same inputs and weights.

python tools/benchmarks/language.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys

import torch
from common import Case, Pair, main
from torch import Tensor, nn
from torch.nn import functional as F

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer
from florence_mm.ops.contrastive import unified_contrastive_loss

# as long as captions of the web are: 4 to 24 tokens
CAPTIONS = (
    'a dog',
    'two children on a beach',
    'Portrait of an old fisherman, black and white',
    'red vintage bicycle leaning against a brick wall in the evening sun',
    'Best running shoes 2021 - reviews and guide',
    'aerial view of terraced rice fields after the rain with farmers at work near the village',
    'blue ceramic vase',
    'view from our hotel room',
)


def _loss(temperature: float) -> Pair:
    """Forward and backward, all labels different, which is CLIP's loss (halved there)."""
    from open_clip.loss import ClipLoss

    torch.manual_seed(0)
    features = [F.normalize(torch.randn(4096, 512), dim=1) for _ in range(2)]
    labels, peer = torch.randperm(4096), ClipLoss()

    def step(ours: bool) -> list[Tensor]:
        image, text = (feature.detach().requires_grad_() for feature in features)
        scale = torch.tensor(temperature, requires_grad=True)
        loss = sum(unified_contrastive_loss(image, text, labels, scale)) if ours else 2 * peer(image, text, scale)
        loss.backward()
        # gradients are near 1 / B; what is compared should be near 1
        return [loss, 4096 * image.grad, 4096 * text.grad, scale.grad]

    return Pair(lambda: step(True), lambda: step(False))


def _text_tower(natural: bool, train: bool) -> Pair:
    """12 layers of 512 channels, 8 texts of 77 ids: full, or captions with zeros behind."""
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    ours = CLIPTextTower('base', act='gelu', norm_eps=1e-5)
    peer = TextTransformer(output_dim=None)
    peer.load_state_dict({k.replace('resblocks', 'transformer.resblocks'): v for k, v in ours.state_dict().items()})
    if natural:
        ids = CLIPTokenizer()(CAPTIONS)
    else:
        ids = torch.randint(1, 49406, (8, 77))
        ids[:, 0], ids[:, -1] = 49406, 49407

    def infer(tower: nn.Module) -> Tensor:
        with torch.inference_mode():
            return tower(ids)

    def step(tower: nn.Module) -> list[Tensor]:
        tower.zero_grad(set_to_none=True)
        out = tower(ids)
        out.square().mean().backward()
        return [out, tower.token_embedding.weight.grad, tower.positional_embedding.grad]

    call = step if train else infer
    return Pair(lambda: call(ours), lambda: call(peer))


def _tokenizer() -> Pair:
    from open_clip.tokenizer import SimpleTokenizer

    texts = [f'{caption} {number}' for number in range(50) for caption in CAPTIONS]
    ours, peer = CLIPTokenizer(), SimpleTokenizer()
    return Pair(lambda: ours(texts), lambda: peer(texts), tolerance=0.0)


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('unicl_loss_4096_vs_clip_loss', 1.5, lambda: _loss(1 / 0.07), rounds=9),
        Case('unicl_loss_4096_temperature_100', 1.5, lambda: _loss(100.0), rounds=9),
        Case('text_tower_full_infer', 0.97, lambda: _text_tower(False, False), rounds=15),
        Case('text_tower_full_train', 0.97, lambda: _text_tower(False, True), rounds=9),
        Case('text_tower_captions_infer', 2.0, lambda: _text_tower(True, False), rounds=15),
        Case('text_tower_captions_train', 2.0, lambda: _text_tower(True, True), rounds=9),
        Case('tokenizer_400_captions', 1.0, _tokenizer, rounds=15),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
