"""A small UNITER."""

from instances import Small
from kinds import RegionPreprocessor
from small_text import STACK, VOCAB
from whole_kinds import VisionLanguage

FEATURES = 6
UNITER = {
    'type': 'UNITER',
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'feature_dims': FEATURES,
    'text': {key: STACK[key] for key in ('hidden_size', 'num_layers', 'num_heads', 'mlp_ratio')}
    | {'max_positions': 20, 'drop_rate': 0.0, 'attn_drop_rate': 0.0},
    'max_text_len': 20,
}
PROTOCOLS = ('Reader', 'Fuser', 'RegionReader', 'ScoresPairs', 'VisionLanguage', 'WholeBatchLoss')
MASK = {'region_embeddings.mask_embedding': 'no region is hidden'}
TOKENS = {'pooler.': 'the head reads tokens'}
UNUSED = {
    'FusionITMHead': MASK,
    'FusionVQAHead': MASK,
    'FusionMLMHead': MASK | TOKENS,
    'FusionRankingHead': MASK,
    'FusionMRFRHead': TOKENS,
    'FusionMRCHead': TOKENS,
}

SMALL = {
    'RegionDataPreprocessor': Small({'type': 'RegionDataPreprocessor'}, RegionPreprocessor()),
    'UNITER': Small(UNITER, VisionLanguage(PROTOCOLS, UNUSED, shape=(4, FEATURES + 7)), PROTOCOLS),
}
