"""Small text encoders and tokenizers."""

from instances import Small
from kinds import TextTower, TokenEncoder, Tokenizer, TowerTokenizer

VOCAB = 600  # ids of CLIP's small tokenizer, without the mask token
TOWER = {
    'type': 'CLIPTextTower',
    'arch': {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2},
    'context_length': 24,
    'vocab_size': VOCAB,
}
ROBERTA = {
    'type': 'RobertaTextEncoder',
    'config': {
        'vocab_size': 261,
        'hidden_size': 16,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'intermediate_size': 32,
        'max_position_embeddings': 62,
    },
}
STACK = {
    'type': 'TextStack',
    'vocab_size': 261,
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_ratio': 2,
    'max_positions': 60,
}

SMALL = {
    'CLIPTextTower': Small(TOWER, TextTower(), refuses_none='at least one text'),
    'CLIPTextTower-both_ways': Small(
        {**TOWER, 'causal': False, 'act': 'gelu'}, TextTower(), refuses_none='at least one text'
    ),
    'CLIPTokenEncoder': Small({'type': 'CLIPTokenEncoder', 'tower': {**TOWER, 'causal': False}}, TokenEncoder()),
    'CLIPTokenEncoder-causal': Small({'type': 'CLIPTokenEncoder', 'tower': TOWER}, TokenEncoder(always_causal=True)),
    'RobertaTextEncoder': Small(ROBERTA, TokenEncoder(), refuses_none='give at least one'),
    'TextStack': Small(STACK, TokenEncoder(), refuses_none='give at least one'),
    'CLIPTokenizer': Small({'type': 'CLIPTokenizer', 'vocab_size': VOCAB}, TowerTokenizer()),
    'MaskedCLIPTokenizer': Small({'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB}, Tokenizer(), ['TextTokenizer']),
    'BertTextTokenizer': Small(
        {'type': 'BertTextTokenizer', 'extra_tokens': ['[DEC]', '[ENC]']}, Tokenizer(), ['TextTokenizer']
    ),
    'LanguageModelTokenizer': Small(
        {'type': 'LanguageModelTokenizer', 'end': '\n'}, Tokenizer(), ['TextTokenizer']
    ),
    'RobertaTextTokenizer': Small({'type': 'RobertaTextTokenizer'}, Tokenizer(), ['TextTokenizer']),
    **{
        f'LocationTokenizer-{name}': Small(
            {'type': 'LocationTokenizer', 'tokenizer': config, 'num_bins': 8}, Tokenizer(), ['TextTokenizer']
        )
        for name, config in {
            'clip': {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB},
            'bert': {'type': 'BertTextTokenizer'},
            'roberta': {'type': 'RobertaTextTokenizer'},
        }.items()
    },
}
