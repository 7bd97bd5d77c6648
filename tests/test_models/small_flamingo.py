"""Small Flamingos: around a stack of ours that learns too, and around a frozen OPT; and its parts and head."""

from instances import Small
from kinds import Language, Tokenizer
from small_blip2 import LAYERED
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import FusionHead, VisionLanguage

TOKENIZER = {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB}
LANGUAGE = {
    'type': 'StackLanguageModel',
    'stack': {key: value for key, value in STACK.items() if key != 'type'}
    | {'vocab_size': VOCAB + 1, 'drop_rate': 0.0, 'attn_drop_rate': 0.0},
}
SIZES = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'max_position_embeddings': 60}
OPT = {
    'type': 'TransformersLanguageModel',
    'config': {
        'model_type': 'opt',
        'vocab_size': VOCAB + 4,
        'ffn_dim': 32,
        'word_embed_proj_dim': 16,
        'dropout': 0.0,
        **SIZES,
    },
}
LLAMA = {
    'type': 'TransformersLanguageModel',
    'config': {'model_type': 'llama', 'vocab_size': VOCAB + 1, 'intermediate_size': 32, **SIZES},
}
FLAMINGO = {
    'type': 'FlorenceFlamingo',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'language_model': LANGUAGE,
    'tokenizer': TOKENIZER,
    'resampler': {'num_layers': 2, 'num_latents': 3, 'num_heads': 2, 'head_dims': 4},
    'num_heads': 2,
    'head_dims': 4,
    'freeze_image_encoder': False,
    'freeze_language_model': False,
    'max_text_len': 20,
}
FROZEN = {**FLAMINGO, 'language_model': OPT, 'every': 2, 'freeze_image_encoder': True, 'freeze_language_model': True}
UNTIED = {**FROZEN, 'language_model': LLAMA, 'act': 'gelu'}
PROTOCOLS = ('Reader', 'Writer', 'VisionLanguage', 'WholeBatchLoss')
KIND = VisionLanguage((*PROTOCOLS, 'DocumentWriter'))
#: Heads with outputs of their own, beside which those of the marks do nothing.
OWN_OUTPUTS = dict.fromkeys(
    (
        *('FusionCaptionHead', 'TaskHead', 'FusionWrittenAnswerHead'),
        *('FusionWrittenAnswerHead-restricted', 'FusionWrittenAnswerHead-ranked'),
    ),
    {'marks.mark_outputs': 'the head has outputs of its own'},
)
UNREACHED = {'image_encoder.': 'frozen', 'language_model.': 'frozen'}

SMALL = {
    'FlorenceFlamingo': Small(FLAMINGO, KIND, PROTOCOLS),
    'FlorenceFlamingo-opt': Small(FROZEN, KIND, PROTOCOLS, without_gradient=UNREACHED),
    'FlorenceFlamingo-llama': Small(
        UNTIED, VisionLanguage(KIND.protocols, OWN_OUTPUTS), PROTOCOLS, without_gradient=UNREACHED
    ),
    'StackLanguageModel': Small(LANGUAGE, Language(), LAYERED),
    'TransformersLanguageModel-llama': Small(LLAMA, Language(), LAYERED),
    'TransformersLanguageModel-flamingo': Small(OPT, Language(), LAYERED),
    'DocumentTokenizer': Small({'type': 'DocumentTokenizer', 'tokenizer': TOKENIZER}, Tokenizer(), ['TextTokenizer']),
    'DocumentHead': Small(
        {'type': 'DocumentHead', 'num_beams': 2, 'max_length': 5},
        FusionHead(['pred_caption', 'caption_score'], discrete=['pred_caption', 'caption_score'], does='writes'),
    ),
}
