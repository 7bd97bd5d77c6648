"""Speed of Florence-2-base beside transformers', on shared weights: 100 location tokens, and a training step.

python tools/benchmarks/florence2.py [--only NAME] [--rounds N] [--out FILE]

100 locations are written about one image, from its pixels of 768 x 768 (``from_pixels``), or from the states of the
encoder on (``writing``), greedily or with three beams. Both sides may write locations alone, and then the end. The peer
is ``generate`` with its cache. A training step is forward, loss and backward of two images of 384 x 384 with answers,
without dropout. Weights are random; ids are compared exactly.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from common import Case, Pair, main
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.models.generation import WriterState
from florence_mm.models.multimodal import Florence2
from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids

SIZE, COUNT, WORDS = 768, 100, 51289
LOCATIONS = range(50269, 51269)
START, PAD, END, MASK, IMAGE = 0, 1, 2, 50264, 51289
PROMPT = [START, 574, 22486, 5, 8720, 19, 4120, 766, 11, 5, 2274, 4, END]  # ids of a prompt for detection


class Ids:
    """A tokenizer of BART's vocabulary with locations, for texts that are ids."""

    vocab_size, num_truncated = WORDS, 0
    start_token_id, end_token_id, pad_token_id, mask_token_id = START, END, PAD, MASK
    special_ids = frozenset((START, PAD, END, 3, MASK))

    def __call__(self, texts: list[str], max_length: int) -> TokenBatch:
        """Make a batch of ids."""
        return pad_ids([[START, *map(int, text.split()), END] for text in texts], PAD)

    def decode(self, ids: list[int]) -> str:
        """Write ids as numbers."""
        return ' '.join(map(str, ids))


@cache
def _models() -> tuple[Florence2, nn.Module]:
    """Our model and the peer's, with the same weights."""
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    torch.manual_seed(0)
    ours = Florence2(
        image_encoder={'type': 'FlorenceDaViT', 'arch': 'base', 'drop_path_rate': 0.0},
        tokenizer=Ids(),
        text={'vocab_size': WORDS + 1, 'drop_rate': 0.0, 'attn_drop_rate': 0.0},
        heads={'tasks': {'type': 'TaskHead', 'max_length': COUNT, 'min_length': COUNT}},
    )
    both = {'layers': 6, 'attention_heads': 12, 'ffn_dim': 3072}
    bart = {f'{part}_{key}': value for part in ('encoder', 'decoder') for key, value in both.items()}
    rates = {'dropout': 0.0, 'attention_dropout': 0.0, 'activation_dropout': 0.0}
    peer = Florence2ForConditionalGeneration(
        Florence2Config(
            vision_config={'projection_dim': 768, 'drop_path_rate': 0.0},
            text_config={'model_type': 'bart', 'vocab_size': WORDS + 1, 'd_model': 768, **bart, **rates},
            image_token_id=IMAGE,
        )
    )
    for name, parameter in peer.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05)
        elif 'bias' in name:
            nn.init.normal_(parameter, std=0.02)
    ours.load_state_dict(convert_state_dict(dict(peer.state_dict()))[1])
    return ours, peer


def _locations(written: list[int]) -> range:
    return LOCATIONS


def _only_locations(ids: Tensor, scores: Tensor) -> Tensor:
    """Leave the peer locations, and then the end."""
    kept = torch.full_like(scores, -torch.inf)
    allowed = slice(END, END + 1) if ids.shape[1] == COUNT + 2 else slice(LOCATIONS.start, LOCATIONS.stop)
    kept[:, allowed] = scores[:, allowed]
    return kept


def _peer_inputs(image_tokens: int) -> Tensor:
    return torch.tensor([[IMAGE] * image_tokens + PROMPT])


def _writing(beams: int, from_pixels: bool) -> Pair:
    ours, peer = (model.eval() for model in _models())
    head = ours.heads['tasks']
    torch.manual_seed(1)
    image = torch.randn(1, 3, SIZE, SIZE)
    prompt = TokenBatch(torch.tensor([PROMPT]), torch.ones(1, len(PROMPT), dtype=torch.bool))
    options = {
        'num_beams': beams,
        'do_sample': False,
        'max_new_tokens': COUNT + 1,
        'decoder_input_ids': torch.tensor([[END, START]]),
        'logits_processor': [_only_locations],
        'eos_token_id': END,
        'pad_token_id': PAD,
    }
    with torch.inference_mode():
        tokens = ours.encode_image(image)
        ids = _peer_inputs(tokens.shape[1])
        memory = ours.start_writing(tokens, [0] * beams, TokenBatch(*(x.repeat(beams, 1) for x in _both(prompt))))
        features = peer.get_image_features(image).pooler_output
        embeds = peer.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter((ids == IMAGE)[..., None], features)
        states = peer.get_encoder()(inputs_embeds=embeds)
    start = ours.start_writing

    @torch.inference_mode()
    def write() -> Tensor:
        head.num_beams = beams
        ours.start_writing = start if from_pixels else partial(_resume, memory)
        image_tokens = ours.encode_image(image) if from_pixels else tokens
        return torch.tensor(head.generate(ours, image_tokens, [0], prompt, allowed=_locations).ids)

    @torch.inference_mode()
    def generate() -> Tensor:
        if from_pixels:
            given = {'pixel_values': image, 'input_ids': ids}
        else:
            # a copy, as generate() repeats them for its beams in place
            given = {'encoder_outputs': replace(states), 'attention_mask': torch.ones_like(ids)}
        return peer.generate(**given, **options)[:, 2 : 2 + COUNT]

    return Pair(write, generate, tolerance=0)


def _both(tokens: TokenBatch) -> tuple[Tensor, Tensor]:
    return tokens.input_ids, tokens.mask


def _resume(state: WriterState, *_: object) -> WriterState:
    """A state with the memory of another and an empty cache."""
    from florence_mm.models.generation import CacheStack

    return WriterState(list(state.image_of), state.first_ids, state.memory, (CacheStack(),))


def _training() -> Pair:
    ours, peer = (model.train() for model in _models())
    torch.manual_seed(1)
    images = torch.randn(2, 3, SIZE // 2, SIZE // 2)
    texts = [[2335, *range(50300, 50304), 4758, *range(50400, 50408)], [10, 2335, 30, 10, 3907]]
    prompts = [PROMPT, PROMPT[:8] + [END]]
    samples = [
        DataSample(prompt=' '.join(map(str, prompt[1:-1])), text=' '.join(map(str, text)))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    answers, asked = pad_ids([[START, *text, END] for text in texts], PAD), pad_ids(prompts, PAD)
    marks = torch.full((2, (SIZE // 64) ** 2 + 1), IMAGE)
    inputs = {
        'input_ids': torch.cat([marks, asked.input_ids], 1),
        'attention_mask': torch.cat([marks > 0, asked.mask], 1).long(),
        'labels': answers.input_ids.masked_fill(~answers.mask, -100),
    }
    words = ours.word_embeddings.weight, peer.get_input_embeddings().weight
    stems = ours.image_encoder.patch_embed.proj.weight, peer.model.vision_tower.convs[0].conv.weight

    def step(side: int, loss: Callable[[], Tensor]) -> list[Tensor]:
        (ours, peer)[side].zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return [value, *(pair[side].grad / pair[side].grad.norm() for pair in (words, stems))]

    return Pair(
        lambda: step(0, lambda: ours(images, samples, mode='loss')['loss_tasks']),
        lambda: step(1, lambda: peer(pixel_values=images, **inputs).loss),
        tolerance=1e-3,
    )


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    found = [Case('florence2_base_training', 1.0, _training, rounds=5)]
    for beams, name in ((1, 'greedy'), (3, 'beams')):
        found.append(Case(f'florence2_base_writing_{name}', 1.3, partial(_writing, beams, False), rounds=5))
        found.append(Case(f'florence2_base_from_pixels_{name}', 1.3, partial(_writing, beams, True), rounds=5))
    return found


if __name__ == '__main__':
    sys.exit(main(cases()))
