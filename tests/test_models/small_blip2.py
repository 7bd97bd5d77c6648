"""Small BLIP-2s: the first stage, and the second one with a causal and with an encoder-decoder language model."""

from instances import Small
from kinds import Kind, Language
from small_clip_vision import TOWER as CLIP
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import TEXTS, VisionLanguage

VIT = {
    **CLIP,
    **{'out_type': 'raw', 'pre_norm': False, 'patch_bias': True, 'post_norm': False, 'act': 'gelu', 'norm_eps': 1e-6},
}
TEXT = {key: value for key, value in STACK.items() if key not in ('type', 'vocab_size', 'num_types')} | {
    'num_layers': 2
}
BLIP2 = {
    'type': 'BLIP2',
    'image_encoder': VIT,
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'text': TEXT,
    'num_queries': 3,
    'max_text_len': 20,
}
# no block is left out: all get a gradient
MAPS = {**BLIP2, 'image_encoder': {**COSWIN, 'out_indices': (2,), 'drop_path_rate': 0.0}, 'freeze_image_encoder': False}
WORDS = {'vocab_size': VOCAB + 1, 'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0}
OPT = {
    **{'model_type': 'opt', 'hidden_size': 24, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'ffn_dim': 32},
    **{'max_position_embeddings': 60, 'word_embed_proj_dim': 16, **WORDS},
}
T5 = {
    **{'model_type': 't5', 'd_model': 24, 'num_layers': 2, 'num_heads': 2, 'd_kv': 8, 'd_ff': 32},
    **{'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False, **WORDS},
}
WRITER = {**BLIP2, 'type': 'BLIP2Writer', 'language_model': {'type': 'TransformersLanguageModel', 'config': OPT}}
WITH_T5 = {**WRITER, 'language_model': {'type': 'TransformersLanguageModel', 'config': T5}}
PROTOCOLS = ('Reader', 'Embedder', 'Fuser', 'Writer', 'ScoresPairs', 'VisionLanguage', 'WholeBatchLoss')
WRITES = ('Reader', 'Writer', 'VisionLanguage', 'WholeBatchLoss')
LAYERED = ('LanguageModel', 'LayeredLanguageModel')
FROZEN = {'image_encoder.': 'frozen'}
LAST = 'qformer.stack.layers.1.'
#: Of the last layer, what makes texts that no head reads, or queries.
TEXTS_LAST = {f'{LAST}{part}': 'only queries are read' for part in ('intermediate', 'output')}
QUERIES_LAST = {f'{LAST}lead_{part}': 'only texts are read' for part in ('intermediate', 'output')}
UNUSED = {
    **dict.fromkeys(('FusionITMHead', 'FusionRankingHead', 'FusionVQAHead'), TEXTS_LAST),
    **dict.fromkeys(('FusionMLMHead', 'FusionCaptionHead', 'TaskHead'), QUERIES_LAST),
    **{f'FusionWrittenAnswerHead{kind}': QUERIES_LAST for kind in ('', '-restricted', '-ranked')},
}


class Texts(Kind):
    """Texts to their scores."""

    def items(self, model):
        return [*TEXTS]

    def outputs(self, model, items):
        from mmpretrain.structures import DataSample

        if not items:
            return []
        return [{'score': one.text_score} for one in model.predict(None, [DataSample(text=text) for text in items])]

    def loss(self, model, items):
        from mmpretrain.structures import DataSample

        return model.loss(None, [DataSample(text=text) for text in items])['loss_text']


SMALL = {
    'BLIP2': Small(
        BLIP2,
        VisionLanguage(PROTOCOLS, UNUSED),
        PROTOCOLS,
        without_gradient=FROZEN,
    ),
    'BLIP2-coswin': Small(MAPS, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'BLIP2Writer': Small(
        WRITER, VisionLanguage(WRITES), WRITES, without_gradient={**FROZEN, 'language_model.': 'frozen'}
    ),
    'BLIP2Writer-t5': Small(
        WITH_T5, VisionLanguage(WRITES), WRITES, without_gradient={**FROZEN, 'language_model.': 'frozen'}
    ),
    'TransformersLanguageModel': Small(WRITER['language_model'], Language(), LAYERED),
    'TransformersLanguageModel-t5': Small(WITH_T5['language_model'], Language(), ['LanguageModel']),
    'LanguageModeling': Small(
        {'type': 'LanguageModeling', 'language_model': WRITER['language_model'], 'tokenizer': BLIP2['tokenizer']},
        Texts(),
    ),
}
