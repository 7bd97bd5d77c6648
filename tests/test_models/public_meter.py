"""METER: ours, and the public module's parts out of transformers' own layers."""

import runpy
from pathlib import Path

import torch
from torch import nn

from florence_mm.models.multimodal import METER

worker = runpy.run_path(str(Path(__file__).parent / 'meter_worker.py'))
ARCH = {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2], 'window_size': 4}
HEADS = {
    'itm': {'type': 'FusionITMHead'},
    'mlm': {'type': 'FusionMLMHead'},
    'vqa': {'type': 'FusionVQAHead', 'num_answers': 9},
}


CLIP = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'patch_size': 8}


def build(conv_embed=False, image=None, **fusion):
    encoder, tokenizer = worker['roberta_text']()
    torch.manual_seed(0)
    image = image or {'type': 'CoSwin', 'arch': ARCH, 'img_size': 32, 'conv_embed': conv_embed}
    fusion = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, **fusion}
    return METER(image, encoder, tokenizer, fusion, HEADS, max_text_len=20).eval()


def clip_tower(**kwargs):
    return {'type': 'CLIPVisionTower', 'arch': CLIP, 'img_size': 32, 'out_type': 'raw', **kwargs}


class PublicMeter(nn.Module):
    """The parts of METER under the names of its public module, of transformers' own layers (``meter_module.py``)."""

    def __init__(self, swin):
        super().__init__()
        from transformers import BertConfig, RobertaConfig, RobertaModel
        from transformers.models.bert.modeling_bert import BertLayer, BertPooler, BertPredictionHeadTransform

        _, config = worker['roberta_text']()[0].values()
        self.vit_model = swin
        self.text_transformer = RobertaModel(RobertaConfig(**config, type_vocab_size=1, layer_norm_eps=1e-5))
        bert = BertConfig(
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=64,
            is_decoder=True,
            add_cross_attention=True,
            attn_implementation='eager',
        )
        self.cross_modal_text_transform = nn.Linear(16, 16)
        self.cross_modal_image_transform = nn.Linear(16, 16)
        self.token_type_embeddings = nn.Embedding(2, 16)
        self.cross_modal_image_layers = nn.ModuleList(BertLayer(bert, layer_idx=0) for _ in range(2))
        self.cross_modal_text_layers = nn.ModuleList(BertLayer(bert, layer_idx=0) for _ in range(2))
        self.cross_modal_image_pooler = BertPooler(bert)
        self.cross_modal_text_pooler = BertPooler(bert)
        self.mlm_score = nn.Module()
        self.mlm_score.transform = BertPredictionHeadTransform(bert)
        self.mlm_score.decoder = nn.Linear(16, 261, bias=False)
        self.mlm_score.bias = nn.Parameter(torch.zeros(261))
        self.itm_score = nn.Module()
        self.itm_score.fc = nn.Linear(32, 2)
        self.vqa_classifier = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 9))
        self.nlvr2_classifier = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 2))
        for name, parameter in self.named_parameters():
            if not name.startswith('vit_model'):
                nn.init.normal_(parameter, std=0.2)
        for module in self.modules():
            if hasattr(module, 'is_causal'):
                module.is_causal = False

    def image_tokens(self, inputs):
        if not hasattr(self.vit_model, 'visual'):
            return self.vit_model(inputs)[-1].flatten(2).transpose(1, 2)
        clip = self.vit_model.visual
        return clip.ln_post(clip.transformer(clip._embeds(inputs)))

    def pooled(self, y):
        """The mean of Swin's tokens, or CLIP's class token, of which the pooler takes the first."""
        return y if hasattr(self.vit_model, 'visual') else y.mean(1, keepdim=True)

    def forward(self, inputs, ids, real):
        """As ``infer`` does it."""
        mask = torch.zeros(real.shape)[:, None, None].masked_fill(~real[:, None, None], torch.finfo(torch.float32).min)
        x = self.text_transformer(ids, real.long()).last_hidden_state
        x = self.cross_modal_text_transform(x) + self.token_type_embeddings(torch.zeros_like(ids))
        y = self.cross_modal_image_transform(self.image_tokens(inputs))
        y = y + self.token_type_embeddings(torch.ones(y.shape[:2], dtype=torch.int64))
        for text_layer, image_layer in zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True):
            x, y = text_layer(x, mask, y, None), image_layer(y, None, x, mask)
        pooled = self.cross_modal_text_pooler(x), self.cross_modal_image_pooler(self.pooled(y))
        pooled = torch.cat(pooled, 1)
        words = self.mlm_score.decoder(self.mlm_score.transform(x)) + self.mlm_score.bias
        return self.vqa_classifier(pooled), self.itm_score.fc(pooled), words


def public(swin):
    torch.manual_seed(3)
    return PublicMeter(swin).eval()


def clip_of_open_clip(layers=2, size=32):
    """CLIP as METER has it: no projection, text embeddings left over."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    torch.manual_seed(8)
    clip = nn.Module()
    clip.visual = VisionTransformer(size, 8, 16, layers, 2, mlp_ratio=4, output_dim=6, act_layer=QuickGELU)
    clip.visual.proj = None
    for parameter in clip.parameters():
        nn.init.normal_(parameter, std=0.2)
    clip.token_embedding = nn.Embedding(9, 16)
    clip.positional_embedding = nn.Parameter(torch.zeros(5, 16))
    clip.ln_final = nn.LayerNorm(16)
    return clip


def lightning(model):
    """A file as PyTorch Lightning writes it, with states of metrics."""
    state = dict(model.state_dict())
    state |= {'train_vqa_vqa_score.score': torch.zeros(()), 'val_itm_accuracy.correct': torch.zeros(())}
    state['text_transformer.embeddings.position_ids'] = torch.arange(60)[None]
    return {'epoch': 3, 'global_step': 7, 'state_dict': state}
