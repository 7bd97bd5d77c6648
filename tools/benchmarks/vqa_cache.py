"""Speed of several questions about one image with cached image tokens, compared with encoding it for each.

python tools/benchmarks/vqa_cache.py [--only NAME] [--rounds N] [--out FILE]

"Ours" encodes the image once, "peer" for each question; both are METER-CoSwin-T with RoBERTa-base's layers, six
co-attention layers of 768 channels and 3,129 answers, random weights. Images have 224 pixels: at 384, or with
CoSwin-H, more is saved.
"""

import sys

import torch
from common import Case, Pair, main
from mmpretrain.structures import DataSample
from torch import Tensor

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.models.multimodal import METER

# as many tokens as VQAv2's questions have: the tokenizer without vocabulary makes one of each letter
QUESTIONS = ('is it day?', 'how many?', 'what colour?', 'who is it?', 'is it wet?')


def _meter(size: int) -> METER:
    torch.manual_seed(0)
    return METER(
        image_encoder={'type': 'CoSwin', 'arch': 'tiny', 'img_size': size},
        text_encoder={'type': 'RobertaTextEncoder', 'config': {'vocab_size': 261}},
        tokenizer={'type': 'RobertaTextTokenizer'},
        heads={'vqa': {'type': 'FusionVQAHead', 'num_answers': 3129}},
    ).eval()


def _scores(samples: list) -> Tensor:
    return torch.stack([sample.pred_scores for sample in samples])  # (questions, K)


def _together(size: int) -> Pair:
    """All questions in one batch."""
    model, image = _meter(size), torch.randn(1, 3, size, size)

    def ask(image_of: list[int], inputs: Tensor) -> Tensor:
        samples = [DataSample(text=question) for question in QUESTIONS]
        with torch.inference_mode():
            model.heads['vqa'].predict(model.make_batch(inputs, samples, image_of))
        return _scores(samples)

    count = len(QUESTIONS)
    copies = image.repeat(count, 1, 1, 1)
    return Pair(lambda: ask([0] * count, image), lambda: ask(list(range(count)), copies))


def _one_by_one(size: int) -> Pair:
    """A call for each question, as inferencers make it: with image tokens that are kept, or of the image anew."""
    model, image = _meter(size), torch.randn(1, 3, size, size)

    def ask(keep: bool) -> Tensor:
        scores = []
        with torch.inference_mode():
            tokens = model.encode_image(image)
            for number, question in enumerate(QUESTIONS):
                if number and not keep:
                    tokens = model.encode_image(image)
                (answered,) = model.answer(tokens, [question], [(0, 0)], top=3129)
                scores.append(torch.tensor(answered.scores))
        return torch.stack(scores)

    return Pair(lambda: ask(True), lambda: ask(False))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('vqa_5_questions_together_224', 1.3, lambda: _together(224), rounds=7),
        Case('vqa_5_questions_one_by_one_224', 1.3, lambda: _one_by_one(224), rounds=7),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
