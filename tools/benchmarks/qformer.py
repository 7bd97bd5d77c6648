"""Speed of the Q-Former beside transformers', on shared weights: inference and a training step.

python tools/benchmarks/qformer.py [--only NAME] [--rounds N] [--out FILE]

32 queries of BERT-base's size read 257 tokens of width 1,408: alone, as before a language model, and with texts of
different lengths, all of whose tokens they see. A training step is forward and backward of the mean of squares, without
optimizer and dropout. Weights are drawn anew, as transformers' queries are zeros; outputs and gradients are compared.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Case, Pair, main
from torch import Tensor, nn

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.models.checkpoints import convert_state_dict
from florence_mm.models.text import QFormer

QUERIES, TOKENS, WIDTH, WORDS = 32, 257, 1408, 30523
LENGTHS = (8, 32, 14, 20)


def _models(dropout: float = 0.0) -> tuple[QFormer, Any, nn.Parameter]:
    """Ours, transformers' ``Blip2ForImageTextRetrieval`` without its image encoder, with the same weights."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    text = {'hidden_dropout_prob': dropout, 'attention_probs_dropout_prob': dropout}
    config = Blip2Config(
        vision_config={'hidden_size': WIDTH, 'num_hidden_layers': 1, 'num_attention_heads': 16, 'image_size': 224},
        qformer_config={'vocab_size': WORDS, 'use_qformer_text_input': True, **text},
        num_query_tokens=QUERIES,
    )
    peer = Blip2ForImageTextRetrieval(config)
    for name, parameter in peer.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05)
        elif 'bias' in name:
            nn.init.normal_(parameter, std=0.02)
    ours = QFormer(WIDTH, QUERIES, {'vocab_size': WORDS, 'drop_rate': dropout, 'attn_drop_rate': dropout})
    _, state, _ = convert_state_dict(dict(peer.state_dict()))
    ours.load_state_dict({k.removeprefix('qformer.'): v for k, v in state.items() if k.startswith('qformer.')})
    return ours, peer, peer.query_tokens


def _texts() -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return torch.randint(1, WORDS, mask.shape), mask


def _pair(with_texts: bool, learns: bool) -> Pair:
    torch.manual_seed(0)
    ours, peer, queries = _models()
    (ours.train if learns else ours.eval)()
    (peer.train if learns else peer.eval)()
    image = torch.randn(len(LENGTHS), TOKENS, WIDTH)
    ids, mask = _texts()
    whole = torch.cat([torch.ones(len(LENGTHS), QUERIES), mask], 1).long()

    def own() -> Tensor:
        if not with_texts:
            return ours.read(image)[0]
        x, layout = ours.stack.embed(ids, mask)
        return ours.fuse(layout.pad(x), mask, image)[0]

    def theirs() -> Tensor:
        x = queries.expand(len(image), -1, -1)
        seen = {'encoder_hidden_states': image, 'query_length': QUERIES}
        if with_texts:
            x = peer.embeddings(input_ids=ids, query_embeds=x)
            seen['attention_mask'] = whole
        return peer.qformer(query_embeds=x, **seen).last_hidden_state[:, :QUERIES]

    def step(run: Callable[[], Tensor], first: nn.Parameter) -> Tensor:
        for parameter in (*ours.parameters(), *peer.parameters()):
            parameter.grad = None
        run().square().mean().backward()
        return first.grad

    if learns:
        return Pair(partial(step, own, ours.query_tokens), partial(step, theirs, queries))
    return Pair(torch.inference_mode()(own), torch.inference_mode()(theirs))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case(f'qformer_{inputs}_{mode}', bar, partial(_pair, inputs == 'with_texts', mode == 'training'), rounds=5)
        for mode, bar in (('inference', 1.15), ('training', 1.0))
        for inputs in ('queries', 'with_texts')
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
