"""Speed of models that write beside transformers', on shared weights: captions, and a training step.

python tools/benchmarks/writing.py [--only NAME] [--rounds N] [--out FILE]

A caption is written from the pixels of one image of 224 x 224 by beam search: three beams, 20 tokens with the end. The
peer is ``generate`` with its cache. A training step is forward, loss and backward of images with captions of different
lengths, without optimizer; dropout is the configured one, except in the first call of each side, whose loss and
gradients are compared. Weights are random; ids are compared exactly.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from common import Case, Pair, main
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.models.multimodal import BLIP, GIT
from florence_mm.models.multimodal.base import VisionLanguageModel

SIZE, BEAMS, LENGTH, WORDS = 224, 3, 20, 30522
CAPTIONS = [
    'a dog by a tree',
    'a plate with three slices of bread and a cup of coffee on a table',
]


@dataclass(frozen=True)
class Writers:
    """A model of ours and the peer's with the same weights.

    Attributes:
        ours: our model, whose head ``caption`` writes.
        peer: the peer's model.
        match: pairs of our parameters and the peer's, whose gradients are compared.
        mark: id that the peer's texts begin with; None: the start token.
        given: ids that the peer's ``generate`` leaves out again at the end of what it is given.
    """

    ours: VisionLanguageModel
    peer: nn.Module
    match: list[tuple[nn.Parameter, nn.Parameter]]
    mark: int | None = None
    given: int = 0

    def begin(self, ids: Tensor) -> Tensor:
        """Replace the start token of texts ``(B, T)`` by the peer's."""
        first = torch.full_like(ids[:, :1], self.ours.tokenizer.start_token_id if self.mark is None else self.mark)
        return torch.cat([first, ids[:, 1:]], 1)


def _git() -> Writers:
    from transformers import GitConfig, GitForCausalLM

    tokenizer = {'type': 'MaskedCLIPTokenizer', 'vocab_size': WORDS - 1}
    ours = GIT(
        image_encoder={'type': 'CLIPVisionTower', 'arch': 'base-16', 'out_type': 'raw'},
        tokenizer=tokenizer,
        text={'embed_norm_eps': 1e-12},
        heads={'caption': {'type': 'FusionCaptionHead', 'tied': True, 'transform': False}},
    )
    words = ours.tokenizer
    ids = {'bos_token_id': words.start_token_id, 'eos_token_id': words.end_token_id, 'pad_token_id': words.pad_token_id}
    peer = GitForCausalLM(GitConfig(tie_word_embeddings=True, **ids))
    for name, parameter in peer.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05)
        elif 'bias' in name:
            nn.init.normal_(parameter, std=0.02)
    ours.load_state_dict(convert_state_dict(dict(peer.state_dict()))[1])
    match = [
        (ours.word_embeddings.weight, peer.git.embeddings.word_embeddings.weight),
        (ours.image_projection[0].weight, peer.git.visual_projection.visual_projection[0].weight),
        (ours.image_encoder.conv1.weight, peer.git.image_encoder.vision_model.embeddings.patch_embedding.weight),
        (ours.text_stack.layers[0].output.dense.weight, peer.git.encoder.layer[0].output.dense.weight),
    ]
    return Writers(ours, peer, match)


def _blip() -> Writers:
    from transformers import BlipConfig, BlipForConditionalGeneration

    image = {'arch': 'base-16', 'out_type': 'raw', 'act': 'gelu', 'norm_eps': 1e-6}
    ours = BLIP(
        image_encoder={'type': 'CLIPVisionTower', **image, 'pre_norm': False, 'patch_bias': True},
        tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': WORDS - 1},
        heads={'caption': {'type': 'FusionCaptionHead', 'tied': True}},
    )
    words = ours.tokenizer
    ids = {'bos_token_id': ours.dec_token_id, 'sep_token_id': words.end_token_id, 'pad_token_id': words.pad_token_id}
    text = {'num_attention_heads': 12, 'encoder_hidden_size': 768, 'vocab_size': WORDS + 2}
    peer = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**text, **ids, 'eos_token_id': words.end_token_id},
            vision_config={'image_size': SIZE, 'layer_norm_eps': 1e-6},
        )
    )
    for name, parameter in peer.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05)
        elif 'bias' in name:
            nn.init.normal_(parameter, std=0.02)
    ours.load_state_dict(convert_state_dict(dict(peer.state_dict()))[1])
    decoder, first = peer.text_decoder.bert, ours.text_encoder.layers[0]
    match = [
        (ours.word_embeddings.weight, decoder.embeddings.word_embeddings.weight),
        (ours.image_encoder.conv1.weight, peer.vision_model.embeddings.patch_embedding.weight),
        (first.output.dense.weight, decoder.encoder.layer[0].output.dense.weight),
        (first.crossattention.query.weight, decoder.encoder.layer[0].crossattention.self.query.weight),
    ]
    return Writers(ours, peer, match, ours.dec_token_id, given=1)


#: Families by name; each makes its models.
FAMILIES: dict[str, Callable[[], Writers]] = {'git': _git, 'blip': _blip}


def _only_end(ids: Tensor, scores: Tensor, end: int, length: int) -> Tensor:
    """End the peer's texts at the length at which ours end."""
    if ids.shape[1] < length:
        return scores
    return torch.full_like(scores, -torch.inf).index_copy_(1, torch.tensor([end]), scores[:, [end]])


def _captions(make: Callable[[], Writers]) -> Pair:
    torch.manual_seed(0)
    writers = make()
    ours, peer, words = writers.ours.eval(), writers.peer.eval(), writers.ours.tokenizer
    head = ours.heads['caption']
    head.num_beams, head.max_length, head.min_length = BEAMS, LENGTH - 1, LENGTH - 1
    image = torch.randn(1, 3, SIZE, SIZE)
    start = writers.begin(torch.full((1, 1 + writers.given), words.end_token_id))
    marks = range(words.vocab_size, head.vocab_size)
    end = partial(_only_end, end=words.end_token_id, length=LENGTH)
    options: dict[str, Any] = {
        'num_beams': BEAMS,
        'do_sample': False,
        'max_new_tokens': LENGTH,
        'min_new_tokens': LENGTH - 1,
        'suppress_tokens': sorted({*words.special_ids, *marks} - {words.end_token_id}),
        'logits_processor': [end],
    }

    @torch.inference_mode()
    def write() -> Tensor:
        return torch.tensor(head.decode(ours, ours.encode_image(image)).ids)

    @torch.inference_mode()
    def generate() -> Tensor:
        ids = peer.generate(pixel_values=image, input_ids=start, attention_mask=torch.ones_like(start), **options)
        return ids[:, 1:LENGTH]

    return Pair(write, generate, tolerance=0)


def _set_dropout(model: nn.Module, rate: float) -> None:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        for name in ('drop_rate', 'attn_drop_rate'):
            if hasattr(part, name):
                setattr(part, name, rate)


def _training(make: Callable[[], Writers]) -> Pair:
    torch.manual_seed(0)
    writers = make()
    images = torch.randn(len(CAPTIONS), 3, SIZE, SIZE)
    samples = [DataSample(text=text) for text in CAPTIONS]
    tokens = writers.ours.tokenize(CAPTIONS)
    ids = writers.begin(tokens.input_ids)
    labels = ids.masked_fill(~tokens.mask, -100)
    inputs = {'input_ids': ids, 'attention_mask': tokens.mask.long(), 'labels': labels}
    compared: set[nn.Module] = set()

    def step(model: nn.Module, side: int, loss: Callable[[], Tensor]) -> list[Tensor]:
        _set_dropout(model, 0.1 if model in compared else 0.0)
        compared.add(model)
        model.train().zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        grads = [pair[side].grad for pair in writers.match]
        return [value, *(grad / grad.norm() for grad in grads)]

    return Pair(
        lambda: step(writers.ours, 0, lambda: writers.ours(images, samples, mode='loss')['loss_caption']),
        lambda: step(writers.peer, 1, lambda: writers.peer(pixel_values=images, **inputs).loss),
        tolerance=1e-3,
    )


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    kinds = {'caption': (1.3, _captions), 'training': (1.0, _training)}
    return [
        Case(f'{family}_base_{kind}', bar, partial(pair, make), rounds=5)
        for family, make in FAMILIES.items()
        for kind, (bar, pair) in kinds.items()
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
