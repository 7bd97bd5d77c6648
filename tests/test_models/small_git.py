"""Small GITs: with image tokens before the text, and with cross-attention to those of videos."""

from instances import Small
from small_clip_vision import TOWER as CLIP
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import VisionLanguage

GIT = {
    'type': 'GIT',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'text': {key: value for key, value in STACK.items() if key not in ('type', 'vocab_size')} | {'num_types': 0},
    'max_text_len': 20,
}
CROSS = {**GIT, 'image_encoder': {**CLIP, 'out_type': 'raw'}, 'cross_attention': True, 'num_frames': 2}
PROTOCOLS = ('Reader', 'Writer', 'VisionLanguage', 'WholeBatchLoss')

SMALL = {
    'GIT': Small(GIT, VisionLanguage(PROTOCOLS), PROTOCOLS),
    'GIT-cross_attention': Small(CROSS, VisionLanguage(PROTOCOLS, shape=(3, 2, 32, 32)), PROTOCOLS),
}
