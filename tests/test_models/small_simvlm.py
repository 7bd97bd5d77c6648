"""Small SimVLMs: with a backbone of ours, and with the first stages of mmpretrain's ResNet."""

from instances import Small
from small_coswin import COSWIN
from small_text import STACK, VOCAB
from whole_kinds import VisionLanguage

SIMVLM = {
    'type': 'SimVLM',
    'image_encoder': {**COSWIN, 'out_indices': (2,)},
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'text': {key: STACK[key] for key in ('hidden_size', 'num_layers', 'num_heads', 'mlp_ratio')},
    'decoder_layers': 1,
    'map_size': (3, 3),  # other than that of the inputs
    'max_text_len': 20,
}
RESNET = {
    'type': 'mmpretrain.ResNet',
    'depth': 50,
    'num_stages': 3,
    'strides': (1, 2, 2),
    'dilations': (1, 1, 1),
    'out_indices': (2,),
    'norm_eval': True,  # statistics of batches are no weights
    'stem_channels': 4,
    'base_channels': 4,
}
PROTOCOLS = ('Reader', 'Writer', 'VisionLanguage', 'WholeBatchLoss')

SMALL = {
    'SimVLM': Small(SIMVLM, VisionLanguage(PROTOCOLS), PROTOCOLS),
    'SimVLM-resnet': Small({**SIMVLM, 'image_encoder': RESNET}, VisionLanguage(PROTOCOLS), PROTOCOLS),
}
