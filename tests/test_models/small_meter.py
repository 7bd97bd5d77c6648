"""Small METERs: with either text encoder, and as the second step of retrieval."""

from instances import Small
from small_clip_vision import TOWER as CLIP
from small_coswin import COSWIN
from small_text import ROBERTA, TOWER, VOCAB
from small_unicl import UNICL
from whole_kinds import Reranking, VisionLanguage

METER = {
    'type': 'METER',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'text_encoder': {'type': 'CLIPTokenEncoder', 'tower': {**TOWER, 'causal': False}},
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'fusion': {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2},
    'max_text_len': 20,
}
BYTES = {**METER, 'text_encoder': ROBERTA, 'tokenizer': {'type': 'RobertaTextTokenizer'}}
CLIPS = {
    **METER,
    'image_encoder': {**CLIP, 'out_type': 'raw'},
    'fusion': {**METER['fusion'], 'image_pool': 'first'},
}
PROTOCOLS = ('Reader', 'Embedder', 'Fuser', 'Writer', 'Attending', 'ScoresPairs', 'VisionLanguage', 'WholeBatchLoss')

UNPOOLED = {
    'cross_modal.text_pooler': 'the head reads tokens',
    'cross_modal.image_pooler': 'the head reads tokens',
    'cross_modal.layers.image_layers.1.': 'what the last layer makes of the image is read by no layer after it',
}
WRITES = {
    **UNPOOLED,
    'cross_modal.layers.image_layers.0.crossattention': 'an image that read text would tell words of later ones',
}
ANSWERS = ('FusionWrittenAnswerHead', 'FusionWrittenAnswerHead-restricted', 'FusionWrittenAnswerHead-ranked')
PARTS = ('text_pooler', 'image_pooler', 'layers.')
UNFUSED = {f'cross_modal.{part}': 'it reads what is not fused' for part in PARTS}
UNUSED = {
    'FusionITCHead': UNFUSED,
    'FusionMLMHead': UNPOOLED,
    **dict.fromkeys(('FusionCaptionHead', 'TaskHead', *ANSWERS), WRITES),
}

SMALL = {
    'METER': Small(METER, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'METER-roberta': Small(BYTES, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'METER-clip': Small(CLIPS, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'RetrievalReranker': Small(
        {
            'type': 'RetrievalReranker',
            'retriever': UNICL,
            'matcher': {**METER, 'heads': {'FusionITMHead': {'type': 'FusionITMHead'}}},
        },
        Reranking(()),
        ('Reranker',),
        without_gradient={'retriever.': 'the two towers find candidates and do not learn'},
    ),
}
