"""The learning rates and decays of METER (``METER/meter/modules/meter_utils.py``; arXiv 2111.11432, section 2.5)."""

import pytest
import torch

import florence_mm.engine  # noqa: F401  (registers)
from florence_mm.engine.optim import parameter_groups
from florence_mm.models.multimodal import METER

PREFIXES = ('image_encoder', 'text_encoder', 'token_type_embeddings', 'cross_modal', 'heads')


def meter(text):
    texts = {
        'roberta': (
            {
                'type': 'RobertaTextEncoder',
                'config': {
                    'vocab_size': 261,
                    'hidden_size': 16,
                    'num_hidden_layers': 1,
                    'num_attention_heads': 2,
                    'intermediate_size': 32,
                },
            },
            {'type': 'RobertaTextTokenizer'},
        ),
        'clip': (
            {
                'type': 'CLIPTokenEncoder',
                'tower': {'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'vocab_size': 600},
            },
            {'type': 'MaskedCLIPTokenizer', 'vocab_size': 600},
        ),
    }
    return METER(
        {'type': 'CoSwin', 'arch': {'embed_dims': 8, 'depths': [1], 'num_heads': [1]}, 'img_size': 32},
        *texts[text],
        {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2},
        {
            'itm': {'type': 'FusionITMHead'},
            'mlm': {'type': 'FusionMLMHead'},
            'vqa': {'type': 'FusionVQAHead', 'num_answers': 3},
        },
    )


LAYER = (
    [f'attention.{name}' for name in ('qkv', 'output.dense')]
    + [f'crossattention.{name}' for name in ('query', 'key_value', 'output.dense')]
    + ['intermediate.dense', 'output.dense']
)
DECAYED = {
    'cross_modal': {
        'text_transform.weight',
        'image_transform.weight',
        'text_pooler.dense.weight',
        'image_pooler.dense.weight',
        *(f'layers.{kind}_layers.0.{name}.weight' for kind in ('text', 'image') for name in LAYER),
    },
    'heads': {
        'itm.fc.weight',
        'mlm.transform.dense.weight',
        'mlm.decoder.weight',
        'vqa.classifier.0.weight',
        'vqa.classifier.3.weight',
    },
    'token_type_embeddings': set(),
    'image_encoder': {
        'patch_embed.proj.weight',
        *(f'layers.0.blocks.0.{name}.weight' for name in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')),
    },
    'roberta': {
        f'model.encoder.layer.0.{name}.weight'
        for name in (
            'attention.self.query',
            'attention.self.key',
            'attention.self.value',
            'attention.output.dense',
            'intermediate.dense',
            'output.dense',
        )
    },
    'clip': {
        f'tower.resblocks.0.{name}'
        for name in ('attn.in_proj_weight', 'attn.out_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight')
    },
}


@pytest.mark.parametrize('text', ['roberta', 'clip'])
def test_the_six_groups(text):
    model = meter(text)
    groups = parameter_groups(model, 1e-5, 0.01, lr_mult={'cross_modal': 5, 'heads': 50})
    settings = {name: (g['lr'], g['weight_decay']) for g in groups for name in g['names']}
    assert set(settings) == {name for name, _ in model.named_parameters()}
    assert sorted(set(settings.values())) == [
        (pytest.approx(lr), wd) for lr in (1e-5, 5e-5, 50e-5) for wd in (0.0, 0.01)
    ]
    for prefix in PREFIXES:
        factor = {'cross_modal': 5, 'heads': 50}.get(prefix, 1)
        mine = {k.removeprefix(prefix + '.'): v for k, v in settings.items() if k.startswith(prefix + '.')}
        assert all(lr == pytest.approx(factor * 1e-5) for lr, _ in mine.values())
        decayed = {name for name, (_, decay) in mine.items() if decay}
        assert decayed == DECAYED[text if prefix == 'text_encoder' else prefix]
    # the paper's words: no decay on text embedding and modality embedding
    undecayed = {name for name, (_, decay) in settings.items() if not decay}
    assert 'token_type_embeddings.weight' in undecayed
    embeddings = {
        'roberta': [f'model.embeddings.{kind}_embeddings.weight' for kind in ('word', 'position', 'token_type')],
        'clip': ['tower.token_embedding.weight', 'tower.positional_embedding', 'mask_embedding'],
    }
    assert undecayed >= {f'text_encoder.{name}' for name in embeddings[text]}
    assert undecayed >= {name for name in settings if name.endswith('.bias') or 'LayerNorm' in name}


def test_the_model_that_finds_hard_negatives_is_in_no_group():
    model = meter('clip')
    model.heads['itm'].similarity = torch.nn.Linear(3, 3).requires_grad_(False)
    groups = parameter_groups(model, 1.0, 0.1, lr_mult={'heads': 5})
    assert not [name for g in groups for name in g['names'] if 'similarity' in name]
