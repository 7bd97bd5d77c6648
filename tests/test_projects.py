"""The worked example: the parts without the framework."""

import ast
import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module('projects.plain_pytorch.train')


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_plain_page_learns(page, seed):
    # with seeds 0 to 4 two epochs end at 0.71, 0.82, 0.78, 0.81 and 0.67; chance is 0.10
    assert page.train(epochs=2, seed=seed) > 0.4


def test_the_plain_page_needs_no_framework(page):
    imports = [
        node for node in ast.walk(ast.parse(Path(page.__file__).read_text())) if isinstance(node, ast.ImportFrom)
    ]
    rooms = {'corpora.digits', 'language.prompts', 'models.backbones', 'models.text', 'models.tokenizers'}
    ours = {node.module for node in imports if node.module.startswith('florence_mm')}
    assert ours == {f'florence_mm.{room}' for room in (*rooms, 'ops.contrastive')}
    assert {node.module.split('.')[0] for node in imports} == {'florence_mm', 'torch'}


def test_pairs_of_the_plain_page_share_a_label_where_class_or_caption_agree(page):
    digits = torch.arange(10).repeat(40)
    texts, labels = page.write_texts(digits)
    captions = {caption.format(name) for caption in page.CAPTIONS for name in page.NAMES}
    for text, label, digit in zip(texts, labels.tolist(), digits.tolist(), strict=True):
        assert page.NAMES[digit] in text
        assert (label == digit) == (text not in captions)
    captioned = {(text, label) for text, label in zip(texts, labels.tolist(), strict=True) if text in captions}
    assert len(captioned) == len({text for text, _ in captioned}) == len({label for _, label in captioned}) > 30


def test_shifts_of_the_plain_page(page, monkeypatch):
    images = page.read_split('test').tensors[0][:3]
    assert images.shape == (3, 3, 32, 32) and images.min() == -1 and images.max() == 1
    middle = torch.full((4, 3), 0.5)
    monkeypatch.setattr(torch, 'rand', lambda *shape: middle)
    torch.testing.assert_close(page.augment(images), images)
    # 8 % of the side to the left and up are 2.56 pixels; what comes in is black
    monkeypatch.setattr(torch, 'rand', lambda *shape: torch.cat([middle[:2], middle[2:] + 0.5]))
    moved = page.augment(images)
    assert (moved[:, :, -2:] == -1).all() and (moved[..., -2:] == -1).all()
    torch.testing.assert_close(moved[..., 4, 4], images[..., 6:8, 6:8].mul(weights()).sum((2, 3)), atol=1e-5, rtol=0)


def weights():
    """Of the pixels 6 and 7 at 6.56, down and across."""
    side = torch.tensor([0.44, 0.56])
    return side[:, None] * side
