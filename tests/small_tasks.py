"""A small Florence-2 with its test data, for tests of what uses models that answer tasks."""

from mmengine.config import Config

MODEL = {
    'type': 'florence_mm.Florence2',
    'image_encoder': {
        'type': 'florence_mm.CoSwin',
        'arch': {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2]},
        'window_size': 4,
    },
    'tokenizer': {
        'type': 'florence_mm.LocationTokenizer',
        'tokenizer': {'type': 'florence_mm.MaskedCLIPTokenizer', 'vocab_size': 600},
        'num_bins': 20,
    },
    'text': {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'max_positions': 90},
    'max_text_len': 30,
    'max_prompt_len': 24,
    'heads': {'tasks': {'type': 'florence_mm.TaskHead', 'max_length': 12}},
}
PIPELINE = [
    {'type': 'florence_mm.LoadImage'},
    {'type': 'florence_mm.Resize', 'scale': (32, 32)},
    {'type': 'florence_mm.PackTask', 'format': {'num_bins': 20}},
]
DATASET = {'type': 'florence_mm.TaskManifest', 'ann_file': 'nowhere.jsonl', 'pipeline': PIPELINE}


def config(**model: object) -> Config:
    """Config of the model, with other arguments."""
    return Config({'model': {**MODEL, **model}, 'test_dataloader': {'dataset': DATASET}})
