"""Small models of two towers, and their preprocessor."""

from instances import Small
from kinds import DataPreprocessor
from small_clip_vision import TOWER as CLIP
from small_coswin import COSWIN, VIDEO
from small_text import TOWER, VOCAB
from whole_kinds import TwoTowers

UNICL = {
    'type': 'UniCL',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'text_encoder': TOWER,
    'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': VOCAB, 'context_length': 24},
    'embed_dims': 8,
}
VIDEO_UNICL = {**UNICL, 'image_encoder': {**VIDEO, 'out_indices': (1,)}, 'micro_batch': 2}
PROTOCOLS = ('ZeroShotModel', 'TwoTowerModel', 'WholeBatchLoss', 'PoolsImages', 'ClassifiesByText', 'LimitsScalars')

SMALL = {
    'UniCL': Small(UNICL, TwoTowers(), PROTOCOLS),
    'UniCL-clip': Small({**UNICL, 'image_encoder': CLIP}, TwoTowers(), PROTOCOLS),
    'UniCL-video': Small(VIDEO_UNICL, TwoTowers((2, 3, 4, 32, 32)), PROTOCOLS),
    'ImageTextDataPreprocessor': Small({'type': 'ImageTextDataPreprocessor'}, DataPreprocessor(), ('ResizesBatches',)),
}
