"""Exchange the pictures of documents, and count how often a model's captions are exchanged with them.

Pairs of test pictures make documents of two pictures, whose captions the model writes one after the other, each behind
what stands before. Then it writes about the same pictures in the other order. The captions of a document are exchanged
if each picture's caption names the same digits in both orders; documents whose captions name the same are left out, as
nothing could be seen.

PYTHONPATH=$PWD python tools/misc/exchanged_documents.py CONFIG CHECKPOINT --pictures data/large_digits/test
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from florence_mm.apis import init_model
from florence_mm.errors import one_sentence_errors
from florence_mm.language.documents import CHUNK_END, IMAGE_MARK
from florence_mm.language.prompts import get_class_names

_NAMES = set(get_class_names('digits'))
_PLURALS = {f'{name}{"es" if name == "six" else "s"}': name for name in _NAMES}


def named_digits(text: str) -> list[str]:
    """The digits that a caption names, sorted and once each, as wordings differ in how often they name one.

    What counts is no name, as the first words of ``'two sixes'`` and ``'three digits: ...'``.
    """
    words = re.findall('[a-z]+', text)
    counts = {number for number, word in enumerate(words[1:]) if word in _PLURALS or word.startswith('digit')}
    named = {_PLURALS.get(word, word) for number, word in enumerate(words) if number not in counts}
    return sorted(named & _NAMES)


@torch.no_grad()
def write_two(
    model: nn.Module, latents: Tensor, pictures_of: Sequence[Sequence[int]], beginning: str = ''
) -> list[tuple[str, str]]:
    """Write the captions of documents of two pictures, one after the other, both behind the same beginning."""
    head = model.find_head('write')
    asked = f'{IMAGE_MARK}{beginning}'
    first = head.write_behind(model, latents, [own[:1] for own in pictures_of], [asked] * len(pictures_of))
    prompts = [f'{asked} {text.text}{CHUNK_END}{asked}' for text in first]
    second = head.write_behind(model, latents, pictures_of, prompts)
    return [(one.text, other.text) for one, other in zip(first, second, strict=True)]


def exchanged_share(model: nn.Module, latents: Tensor, beginning: str = '') -> tuple[float, int, list[tuple[str, str]]]:
    """Share of documents whose captions are exchanged with their pictures.

    Args:
        model: a model with a document head.
        latents: ``(U, R, C)`` encoded pictures, of which neighbours make a document.
        beginning: what all captions begin with, so that their wording is the same.

    Returns:
        the share, the number of documents, and their captions in the first order.
    """
    pairs = [[number, number + 1] for number in range(0, len(latents) - 1, 2)]
    written = write_two(model, latents, pairs, beginning)
    turned = write_two(model, latents, [pair[::-1] for pair in pairs], beginning)
    found = [
        (named_digits(a) == named_digits(d) and named_digits(b) == named_digits(c))
        for (a, b), (c, d) in zip(written, turned, strict=True)
        if named_digits(a) != named_digits(b) or named_digits(c) != named_digits(d)
    ]
    return sum(found) / max(len(found), 1), len(found), written


def main() -> None:
    """Print the share."""
    parser = argparse.ArgumentParser(description='Exchange the pictures of documents')
    parser.add_argument('config', help='config of the model')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '--pictures', default='data/large_digits/test', help='folder of pictures (default: %(default)s)'
    )
    parser.add_argument('--most', type=int, default=400, help='number of pictures (default: %(default)s)')
    parser.add_argument('--beginning', default='', help="what all captions begin with, as 'a picture of'")
    args = parser.parse_args()
    with one_sentence_errors():
        loaded = init_model(args.config, args.checkpoint, device='cpu')
        files = sorted(str(file) for file in Path(args.pictures).glob('*.png'))[: args.most]
        batch = loaded.model.data_preprocessor(loaded.preprocess(files))
        with torch.no_grad():
            latents = loaded.model.encode_image(batch['inputs'])
        share, count, written = exchanged_share(loaded.model, latents, args.beginning)
    for one, other in written[:3]:
        print(f'{one} | {other}')
    print(f'exchanged pictures exchange the captions in {share:.3f} of {count} documents')


if __name__ == '__main__':
    main()
