"""Small Florence-2s: with a backbone of ours, with two of its maps, and with more decoder than encoder layers."""

from instances import Small
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import VisionLanguage

FLORENCE2 = {
    'type': 'Florence2',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'text': {key: STACK[key] for key in ('hidden_size', 'num_layers', 'num_heads', 'mlp_ratio')}
    | {'max_positions': 60},
    'max_map_size': 5,
    'max_text_len': 20,
    'max_prompt_len': 16,
}
PROTOCOLS = ('Reader', 'Writer', 'TeachesStart', 'VisionLanguage', 'WholeBatchLoss')

SMALL = {
    'Florence2': Small(FLORENCE2, VisionLanguage(PROTOCOLS), PROTOCOLS),
    'Florence2-joined': Small(
        {**FLORENCE2, 'image_encoder': {**COSWIN, 'out_indices': (1, 2)}, 'join_maps': True, 'max_map_size': 10}
        | {'text': {**FLORENCE2['text'], 'max_positions': 140}},
        VisionLanguage(PROTOCOLS),
        PROTOCOLS,
    ),
    'Florence2-deeper': Small({**FLORENCE2, 'decoder_layers': 3}, VisionLanguage(PROTOCOLS), PROTOCOLS),
}
