"""Florence-2 as its packages have it: transformers' model, and the layout of its own code, with random weights."""

import torch
from public_blip import randomise
from public_davit import ARCH, SIZES, named_as_florence

from florence_mm.models.checkpoints.renaming import pop_prefix
from florence_mm.models.multimodal import Florence2
from florence_mm.models.tokenizers.protocol import pad_ids

VOCAB, WIDTH, PROMPT, TEXT = 60, 32, 16, 12
START, PAD, END, MASK = 0, 1, 2, 3  # as in BART


class Ids:
    """A tokenizer of texts that are numbers."""

    vocab_size, num_truncated = VOCAB, 0
    start_token_id, end_token_id, pad_token_id, mask_token_id = START, END, PAD, MASK
    special_ids = frozenset((START, END, PAD, MASK))

    def __call__(self, texts, max_length):
        rows = [[*map(int, text.split())][: max_length - 2] for text in texts]
        return pad_ids([[START, *row, END] for row in rows], PAD)

    def decode(self, ids):
        return ' '.join(str(int(one)) for one in ids if int(one) not in self.special_ids)


def hugging_face(vocab=VOCAB + 1, **text):
    """transformers' model, whose last word is the mark of an image."""
    import transformers

    stages = {'patch_size': (7, 3, 3), 'patch_stride': (4, 2, 2), 'patch_padding': (3, 1, 1)}
    stages |= {'embed_dim': (16, 32, 64), 'patch_prenorm': (False, True, True), 'num_groups': (1, 2, 4), **SIZES}
    vision = {**stages, 'drop_path_rate': 0.0, 'projection_dim': WIDTH, 'max_position_embeddings': 9}
    both = {'layers': 2, 'attention_heads': 4, 'ffn_dim': 64}
    bart = {f'{part}_{key}': value for part in ('encoder', 'decoder') for key, value in both.items()}
    config = transformers.Florence2Config(
        vision_config=vision,
        text_config={
            **{'model_type': 'bart', 'vocab_size': vocab, 'd_model': WIDTH, 'max_position_embeddings': 50, **bart},
            **{'decoder_layers': 3, 'forced_eos_token_id': None, **text},
        },
        image_token_id=VOCAB,
    )
    model = transformers.Florence2ForConditionalGeneration(config)
    return randomise(model)


def hugging_face_without_mark():
    """transformers' model whose word for the mark of an image is zero, as our export writes it."""
    model = hugging_face()
    with torch.no_grad():
        model.get_input_embeddings().weight[VOCAB] = 0
    return model


def florence(words=VOCAB + 1, **kwargs):
    """Our model of the same sizes, with as many word embeddings."""
    text = {'num_layers': 2, 'hidden_size': WIDTH, 'num_heads': 4, 'mlp_ratio': 2, 'max_positions': 50}
    config = {
        'image_encoder': {'type': 'FlorenceDaViT', 'arch': ARCH, 'drop_path_rate': 0.0},
        'tokenizer': Ids(),
        'text': {**text, 'vocab_size': words, 'drop_rate': 0.0, 'attn_drop_rate': 0.0},
        'decoder_layers': 3,
        'max_map_size': 9,
        'max_text_len': TEXT,
        'max_prompt_len': PROMPT,
        'heads': {'tasks': {'type': 'TaskHead'}},
    }
    return randomise(Florence2(**{**config, **kwargs}), seed=1)


def public():
    """transformers' tensors as Florence-2's own code names them, without the mark of an image and with a bias."""
    state = dict(hugging_face().state_dict())
    words = state['model.language_model.shared.weight'][:-1]
    image, between = pop_prefix(state, 'model.vision_tower.'), pop_prefix(state, 'model.multi_modal_projector.')
    theirs = {f'vision_tower.{key}': value for key, value in named_as_florence(image).items()}
    theirs['image_projection'] = between.pop('image_projection.weight').t().contiguous()
    for key, value in between.items():
        theirs[key.replace('image_position_embed', 'image_pos_embed')] = value
    for key, value in pop_prefix(state, 'model.language_model.').items():
        theirs[f'language_model.model.{key}'] = words if value.shape[0] == VOCAB + 1 else value
    theirs['language_model.lm_head.weight'] = words
    theirs['language_model.final_logits_bias'] = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(3))
    return theirs
