"""Small BLIPs: with a plain ViT, with CoSwin, and with a decoder of its own."""

from instances import Small
from small_clip_vision import TOWER as CLIP
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import Reranking, VisionLanguage

VIT = {**CLIP, 'out_type': 'raw', 'pre_norm': False, 'patch_bias': True, 'act': 'gelu', 'norm_eps': 1e-6}
TEXT = {key: value for key, value in STACK.items() if key not in ('type', 'vocab_size', 'num_types')} | {
    'num_layers': 1
}
BLIP = {
    'type': 'BLIP',
    'image_encoder': VIT,
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'text': TEXT,
    'max_text_len': 20,
}
MAPS = {
    **BLIP,
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'image_pool': 'mean',
    'text': {**TEXT, 'hidden_size': 32},
}
DECODER = {**BLIP, 'text': {**TEXT, 'num_layers': 2, 'mlp_ratio': 1}, 'decoder': {'num_layers': 1}}
RETRIEVAL = {
    'itc': {'type': 'FusionITCHead', 'embed_dims': 8},
    'itm': {'type': 'FusionITMHead', 'negatives': 'all'},
}
PROTOCOLS = (
    *('Reader', 'Embedder', 'HasTowers', 'Fuser', 'Writer', 'ScoresPairs', 'VisionLanguage', 'WholeBatchLoss'),
)


def layers(*parts, count=1):
    return {f'text_encoder.layers.{n}.{part}': 'of another mode' for n in range(count) for part in parts}


ENCODED = layers('causal_attention')
ANSWERS = ('FusionWrittenAnswerHead', 'FusionWrittenAnswerHead-restricted', 'FusionWrittenAnswerHead-ranked')
UNUSED = {
    **dict.fromkeys((*ANSWERS, 'TaskHead'), {}),  # a question is encoded, and its answer written
    'FusionITCHead': layers('causal_attention', 'crossattention'),
    'FusionITMHead': ENCODED,
    'FusionRankingHead': ENCODED,
    'FusionMLMHead': ENCODED,
    'FusionVQAHead': ENCODED,
    'FusionCaptionHead': layers('attention'),
}
APART = {
    **dict.fromkeys(UNUSED, {'text_decoder.': 'it writes'}),
    'FusionITCHead': {'text_decoder.': 'it writes', **layers('crossattention', count=2)},
    'FusionCaptionHead': {'text_encoder.': 'it does not write'},
    **dict.fromkeys((*ANSWERS, 'TaskHead'), {}),
}

SMALL = {
    'BLIP': Small(BLIP, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'BLIP-coswin': Small(MAPS, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'RetrievalReranker-blip': Small(
        {'type': 'RetrievalReranker', 'retriever': None, 'matcher': {**BLIP, 'heads': RETRIEVAL}},
        Reranking(()),
        ('Reranker',),
        without_gradient={'matcher.text_encoder.layers.0.causal_attention': 'it writes'},
    ),
    'BLIP-decoder': Small(DECODER, VisionLanguage(PROTOCOLS, APART), PROTOCOLS),
}
