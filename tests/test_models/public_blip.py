"""BLIP as its packages have it: transformers' models, and the layout of salesforce's files with random weights."""

import torch
from torch import nn

import florence_mm  # noqa: F401  (first, it patches transformers)
from florence_mm.models.multimodal import BLIP
from florence_mm.models.tokenizers.protocol import pad_ids

VOCAB, WIDTH, IMAGE_WIDTH, SHARED, MAX_LEN = 40, 32, 48, 8, 12
START, END, PAD, MASK, DEC, ENC = 1, 2, 0, 3, 38, 39


class Ids:
    """A tokenizer of texts that are numbers: ids 4 to 37, with BLIP's two marks behind."""

    vocab_size, extra_token_ids = VOCAB, {'[DEC]': DEC, '[ENC]': ENC}
    start_token_id, end_token_id, pad_token_id, mask_token_id = START, END, PAD, MASK
    special_ids, num_truncated = frozenset((START, END, PAD, MASK, DEC, ENC)), 0

    def __call__(self, texts, max_length):
        return pad_ids([[START, *map(int, text.split()), END] for text in texts], PAD)

    def decode(self, ids):
        return ' '.join(str(int(one)) for one in ids if int(one) not in self.special_ids)


def randomise(model, std=0.1, seed=0):
    """Weights of that standard deviation; those that transformers draws for BLIP are nearly or exactly 0."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        centre = 1.0 if parameter.ndim == 1 and 'norm' in name.lower() and name.endswith('weight') else 0.0
        nn.init.normal_(parameter, centre, std)
    return model.eval()


def hugging_face(kind, image_width=IMAGE_WIDTH, **text):
    """One of transformers' models with BLIP's settings, which are not its defaults."""
    import transformers

    config = transformers.BlipConfig(
        text_config={
            **{'vocab_size': VOCAB, 'hidden_size': WIDTH, 'num_hidden_layers': 2, 'num_attention_heads': 4},
            **{'intermediate_size': 64, 'max_position_embeddings': 20, 'encoder_hidden_size': image_width},
            **{'bos_token_id': DEC, 'sep_token_id': END, 'eos_token_id': END, 'pad_token_id': PAD, **text},
        },
        vision_config={
            **{'hidden_size': image_width, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'image_size': 32},
            **{'intermediate_size': 96, 'patch_size': 8, 'layer_norm_eps': 1e-6, 'hidden_act': 'gelu'},
        },
        image_text_hidden_size=SHARED,
    )
    return randomise(getattr(transformers, f'BlipFor{kind}')(config))


def ours(heads, image_width=IMAGE_WIDTH, tokenizer=None, **kwargs):
    """Our model of the same sizes; arguments that BLIP does not have are of its text model."""
    arch = {'embed_dims': image_width, 'num_layers': 2, 'num_heads': 4, 'patch_size': 8, 'mlp_ratio': 96 / image_width}
    image = {'type': 'CLIPVisionTower', 'arch': arch, 'img_size': 32, 'out_type': 'raw', 'act': 'gelu'}
    text = {'hidden_size': WIDTH, 'num_layers': 2, 'num_heads': 4, 'mlp_ratio': 2, 'max_positions': 20}
    known = ('decoder', 'image_pool', 'enc_token_id', 'dec_token_id')
    own = {key: kwargs.pop(key) for key in known if key in kwargs}
    return BLIP(
        {**image, 'norm_eps': 1e-6, 'pre_norm': False, 'patch_bias': True},
        tokenizer or Ids(),
        {**text, **kwargs},
        heads=heads,
        max_text_len=MAX_LEN,
        **own,
    ).eval()


HEADS = {
    'itc': {'type': 'FusionITCHead', 'embed_dims': SHARED},
    'itm': {'type': 'FusionITMHead'},
    'caption': {'type': 'FusionCaptionHead', 'tied': True, 'label_smoothing': 0.1, 'num_beams': 3, 'max_length': 6},
}
MOMENTUM = {**HEADS['itc'], 'momentum': 0.9, 'queue_size': 12, 'positives': 'own_text'}


def salesforce(retrieval=False, seed=0):
    """A file of salesforce's pretraining, or of its retrieval, with a momentum model and a queue."""
    generation, matching = hugging_face('ConditionalGeneration'), hugging_face('ImageTextRetrieval')
    states = {name: in_their_names(one.state_dict()) for name, one in (('lm', generation), ('itm', matching))}
    state = dict(states['itm'])
    for key, value in list(state.items()):
        if key.startswith(('visual_encoder.', 'text_encoder.', 'vision_proj', 'text_proj')):
            part, _, rest = key.partition('.')
            state[f'{part}_m.{rest}'] = value + 0.01
    torch.manual_seed(seed)
    for name in ('image', 'text'):
        state[f'{name}_queue'] = nn.functional.normalize(torch.randn(SHARED, 12), dim=0)
    state['temp'] = torch.tensor(0.05)
    if retrieval:
        return state | {'ptr_queue': torch.tensor([4]), 'idx_queue': torch.arange(12)[None] - 100}
    state['queue_ptr'] = torch.tensor([4])
    for key, value in states['lm'].items():
        if key.startswith('text_decoder.'):  # all but self-attention is the encoder's
            shared = key.replace('text_decoder.bert.', 'text_encoder.')
            state[key] = state[shared] if shared in state and '.attention.' not in key else value
    words = state['text_encoder.embeddings.word_embeddings.weight']
    return state | {'text_decoder.cls.predictions.decoder.weight': words}


def in_their_names(state):
    """transformers' image encoder under salesforce's names."""
    names = (
        ('vision_model.embeddings.class_embedding', 'visual_encoder.cls_token'),
        ('vision_model.embeddings.position_embedding', 'visual_encoder.pos_embed'),
        ('vision_model.embeddings.patch_embedding.', 'visual_encoder.patch_embed.proj.'),
        ('vision_model.encoder.layers.', 'visual_encoder.blocks.'),
        ('vision_model.post_layernorm.', 'visual_encoder.norm.'),
        ('.self_attn.qkv.', '.attn.qkv.'),
        ('.self_attn.projection.', '.attn.proj.'),
        ('.layer_norm', '.norm'),
    )
    renamed = {}
    for key, value in state.items():
        for theirs, other in names:
            key = key.replace(theirs, other)
        renamed[key] = value.clone()
    return renamed
