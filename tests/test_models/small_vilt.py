"""Small ViLTs: of patches, with fewer of them in training, and of the map of a backbone."""

from instances import Small
from kinds import DataPreprocessor
from small_coswin import COSWIN
from small_text import VOCAB
from whole_kinds import VisionLanguage

VILT = {
    'type': 'ViLT',
    'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_ratio': 2,
    'patch_size': 8,
    'img_size': 24,  # other than that of the inputs, so that positions are interpolated
    'max_patches': None,
    'drop_rate': 0.0,
    'max_text_len': 20,
}
PROTOCOLS = ('Reader', 'Fuser', 'ScoresPairs', 'VisionLanguage', 'NamesNoDecay', 'WholeBatchLoss')
UNUSED = {'FusionMLMHead': {'pooler.': 'the head reads tokens'}}

SMALL = {
    'PaddedImageDataPreprocessor': Small({'type': 'PaddedImageDataPreprocessor'}, DataPreprocessor()),
    'ViLT': Small(VILT, VisionLanguage(PROTOCOLS, UNUSED), PROTOCOLS),
    'ViLT-coswin': Small(
        {**VILT, 'image_encoder': {**COSWIN, 'out_indices': (2,)}, 'patch_size': 1, 'img_size': 3},
        VisionLanguage(PROTOCOLS, UNUSED),
        PROTOCOLS,
    ),
}
