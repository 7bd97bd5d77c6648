"""UniCL (arXiv 2111.11432, sections 2.2 and 2.3) on real handwritten digits, in plain PyTorch.

No runner, no config, no registry: the backbone, text tower, tokenizer and loss of florence_mm are modules and functions
like any others, and this page has the rest. From the checkout, with the checkout on Python's path:

    PYTHONPATH=. python projects/plain_pytorch/train.py [--epochs 36] [--seed 0]

Shape legend: ``B`` pairs, ``C`` width of a tower, ``D`` embedding width, ``K`` classes, ``P`` prompts a class.
"""

import argparse
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from florence_mm.corpora.digits import CAPTIONS, load_digits_split, render_digit
from florence_mm.language.prompts import SIMPLE_TEMPLATES, fill_template, get_class_names
from florence_mm.models.backbones import CoSwin
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer
from florence_mm.ops.contrastive import unified_contrastive_loss

NAMES = get_class_names('digits')  # zero to nine


class TwoTowers(nn.Module):
    """A tower for pictures, one for texts, and a projection of each into the common space."""

    def __init__(self, embed_dims: int = 64, vocab_size: int = 4096) -> None:
        super().__init__()
        # a digit has 8x8 pixels, drawn four times as large: one token a pixel
        self.image_encoder = CoSwin('micro', img_size=32, patch_size=4, out_indices=(2,), drop_path_rate=0.0)
        self.text_encoder = CLIPTextTower('micro', vocab_size=vocab_size)
        self.tokenizer = CLIPTokenizer(vocab_size=vocab_size)
        self.image_projection = nn.Linear(self.image_encoder.num_features, embed_dims, bias=False)
        self.text_projection = nn.Linear(self.text_encoder.embed_dims, embed_dims, bias=False)
        self.logit_scale = nn.Parameter(torch.ones(()))

    def encode_images(self, images: Tensor) -> Tensor:
        """``(B, 3, 32, 32)``, about zero, to ``(B, D)`` of length 1."""
        (maps,) = self.image_encoder(images)  # (B, C, 2, 2)
        return F.normalize(self.image_projection(maps.mean((2, 3))), dim=-1)

    def encode_texts(self, texts: list[str]) -> Tensor:
        """B texts to ``(B, D)`` of length 1."""
        return F.normalize(self.text_projection(self.text_encoder(self.tokenizer(texts))), dim=-1)


def read_split(split: str) -> TensorDataset:
    """Pictures ``(N, 3, 32, 32)`` from -1 to 1 and digits ``(N,)`` of the embedded data."""
    images, digits = load_digits_split(split)
    drawn = torch.stack([torch.from_numpy(render_digit(image, 32)) for image in images])  # (N, 32, 32) uint8
    return TensorDataset(drawn[:, None].expand(-1, 3, -1, -1) / 127.5 - 1, torch.from_numpy(digits))


def augment(images: Tensor) -> Tensor:
    """Pictures turned by up to 10 degrees, scaled by up to an eighth and shifted by up to 8 % of their side."""
    angle, scale, x, y = (torch.rand(4, len(images)) * 2 - 1) * torch.tensor([[0.17], [0.12], [0.16], [0.16]])
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    matrix = torch.stack([cos, -sin, x, sin, cos, y], 1).view(-1, 2, 3)
    # what comes in at the border is as black as the margin
    return F.grid_sample(images + 1, F.affine_grid(matrix, images.shape, align_corners=False), align_corners=False) - 1


def write_texts(digits: Tensor) -> tuple[list[str], Tensor]:
    """A class name in a prompt or a caption for each digit, and the label ``(B,)`` of each pair.

    Pairs are each other's positives where they have one class, or the same caption: that is the image-text-label space.
    """
    texts, labels = [], []
    for digit in digits.tolist():
        caption = random.randrange(2 * len(CAPTIONS))
        if caption < len(CAPTIONS):
            texts.append(CAPTIONS[caption].format(NAMES[digit]))
            labels.append(len(NAMES) * (1 + caption) + digit)
        else:
            texts.append(fill_template(random.choice(SIMPLE_TEMPLATES), NAMES[digit]))
            labels.append(digit)
    return texts, torch.tensor(labels)


@torch.no_grad()
def zero_shot_accuracy(model: TwoTowers, data: TensorDataset) -> float:
    """Share of the pictures whose nearest class is theirs; a class is the mean of its prompts."""
    model.eval()
    images, digits = data.tensors
    prompts = [fill_template(template, name) for name in NAMES for template in SIMPLE_TEMPLATES]
    classes = model.encode_texts(prompts).unflatten(0, (len(NAMES), -1)).mean(1)  # (K P, D) to (K, D)
    scores = model.encode_images(images) @ F.normalize(classes, dim=-1).T  # (B, K)
    return (scores.argmax(1) == digits).double().mean().item()


def train(epochs: int, seed: int) -> float:
    """Train two towers; returns their zero-shot accuracy on the held-out digits."""
    random.seed(seed)
    torch.manual_seed(seed)
    model = TwoTowers()
    loader = DataLoader(read_split('train'), batch_size=64, shuffle=True, drop_last=True)
    # biases, norms and the temperature do not decay
    matrices, others = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups = [dict(params=matrices), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.2, fused=True)
    # up for a tenth of the steps, then down along a cosine
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=epochs * len(loader), pct_start=0.1, cycle_momentum=False
    )
    for epoch in range(epochs):
        model.train()
        for images, digits in loader:
            texts, labels = write_texts(digits)
            image_feat, text_feat = model.encode_images(augment(images)), model.encode_texts(texts)
            loss = sum(unified_contrastive_loss(image_feat, text_feat, labels, model.logit_scale.exp()))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        print(f'epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}', flush=True)
    return zero_shot_accuracy(model, read_split('test'))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Train UniCL on the embedded digits in plain PyTorch.')
    parser.add_argument('--epochs', type=int, default=36)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    print(f'zero-shot accuracy on 450 held-out digits: {train(args.epochs, args.seed):.4f}')
