import re
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint
from florence_mm.models.checkpoints.meter import join_projections
from florence_mm.models.multimodal import METER
from florence_mm.models.text import RobertaTextEncoder

worker = runpy.run_path(str(Path(__file__).parent / 'meter_worker.py'))
ARCH = {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2], 'window_size': 4}
HEADS = {
    'itm': {'type': 'FusionITMHead'},
    'mlm': {'type': 'FusionMLMHead'},
    'vqa': {'type': 'FusionVQAHead', 'num_answers': 9},
}


def build(conv_embed=False):
    encoder, tokenizer = worker['roberta_text']()
    torch.manual_seed(0)
    image = {'type': 'CoSwin', 'arch': ARCH, 'img_size': 32, 'conv_embed': conv_embed}
    fusion = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2}
    return METER(image, encoder, tokenizer, fusion, HEADS, max_text_len=20).eval()


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

    def forward(self, inputs, ids, real):
        """As ``infer`` does it, with the image's tokens pooled by their mean, which is what it does for Swin."""
        mask = torch.zeros(real.shape)[:, None, None].masked_fill(~real[:, None, None], torch.finfo(torch.float32).min)
        x = self.text_transformer(ids, real.long()).last_hidden_state
        x = self.cross_modal_text_transform(x) + self.token_type_embeddings(torch.zeros_like(ids))
        y = self.cross_modal_image_transform(self.vit_model(inputs)[-1].flatten(2).transpose(1, 2))
        y = y + self.token_type_embeddings(torch.ones(y.shape[:2], dtype=torch.int64))
        for text_layer, image_layer in zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True):
            x, y = text_layer(x, mask, y, None), image_layer(y, None, x, mask)
        pooled = self.cross_modal_text_pooler(x), self.cross_modal_image_pooler(y.mean(1, keepdim=True))
        pooled = torch.cat(pooled, 1)
        words = self.mlm_score.decoder(self.mlm_score.transform(x)) + self.mlm_score.bias
        return self.vqa_classifier(pooled), self.itm_score.fc(pooled), words


def public(swin):
    torch.manual_seed(3)
    return PublicMeter(swin).eval()


def lightning(model):
    """A file as PyTorch Lightning writes it, with states of metrics."""
    state = dict(model.state_dict())
    state |= {'train_vqa_vqa_score.score': torch.zeros(()), 'val_itm_accuracy.correct': torch.zeros(())}
    state['text_transformer.embeddings.position_ids'] = torch.arange(60)[None]
    return {'epoch': 3, 'global_step': 7, 'state_dict': state}


def test_public_weights_give_the_public_outputs(tmp_path):
    model = build()
    source = build()
    for parameter in source.image_encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    peer = public(source.image_encoder)
    torch.save(lightning(peer), tmp_path / 'meter.ckpt')
    report = load_checkpoint(model, tmp_path / 'meter.ckpt')
    assert report.format == 'METER'
    assert (report.missing, report.unexpected) == ([], [])
    reasons = {
        reason: sorted(k for k, why in report.skipped.items() if why == reason) for reason in report.skipped.values()
    }
    assert reasons == {
        'a head of a task that is not here': sorted(k for k in peer.state_dict() if k.startswith('nlvr2')),
        "a metric's state": ['train_vqa_vqa_score.score', 'val_itm_accuracy.correct'],
        'computed by the model': ['text_transformer.embeddings.position_ids'],
        'of the pooler or a head, which METER does not take over': [
            'text_transformer.pooler.dense.bias',
            'text_transformer.pooler.dense.weight',
        ],
    }
    data = worker['preprocessed'](
        model, worker['batch'](['a dog', 'how many are'], torch.randint(0, 256, (2, 3, 32, 32)))
    )
    tokens = model.tokenize(['a dog', 'how many are'])
    with torch.no_grad():
        answers, match, words = peer(data['inputs'], tokens.input_ids, tokens.mask)
        fused = model(**data)
        torch.testing.assert_close(model.heads['vqa'](fused.pooled), answers, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.heads['itm'](fused.pooled), match, rtol=1e-5, atol=1e-5)
        ours = model.heads['mlm'](fused.text)
    torch.testing.assert_close(ours[tokens.mask], words[tokens.mask], rtol=1e-5, atol=1e-5)


def test_an_image_encoder_of_another_kind_is_listed(tmp_path):
    clip = nn.Module()
    clip.visual = nn.Module()
    clip.visual.conv1 = nn.Conv2d(3, 8, 4, 4)
    torch.save(lightning(public(clip)), tmp_path / 'meter.ckpt')
    model = build(conv_embed=True)
    before = model.image_encoder.patch_embed.proj.weight.clone()
    with pytest.raises(ValueError, match='has none of the 36 tensors of image_encoder of METER'):
        load_checkpoint(model, tmp_path / 'meter.ckpt')
    report = load_checkpoint(model, tmp_path / 'meter.ckpt', allow_missing=['image_encoder'])
    assert report.skipped['vit_model.visual.conv1.weight'] == 'of an image encoder other than Swin'
    assert 'of an image encoder other than Swin: vit_model.visual.conv1' in str(report)
    assert report.missing and all(key.startswith('image_encoder.') for key in report.missing)
    assert torch.equal(model.image_encoder.patch_embed.proj.weight, before)


def test_timms_swin_inside():
    state = {k: v for k, v in public(build().image_encoder).state_dict().items() if 'vit_model' not in k}
    swin = build().image_encoder.state_dict()
    # timm counts a merge to the stage that follows
    state |= {'vit_model.' + k.replace('layers.0.downsample', 'layers.1.downsample'): v for k, v in swin.items()}
    state['vit_model.head.weight'] = torch.zeros(3, 16)
    name, converted, skipped = convert_state_dict(state)
    assert name == 'METER'
    assert {k.removeprefix('image_encoder.') for k in converted if k.startswith('image_encoder.')} == set(swin)
    assert skipped['vit_model.head.weight'] == 'not part of the backbone'


@pytest.mark.parametrize('prefix', ['', 'roberta.'])
def test_robertas_state_dicts(tmp_path, prefix):
    from transformers import RobertaForMaskedLM

    config = worker['roberta_text']()[0]['config']
    encoder = RobertaTextEncoder(config=config).eval()
    torch.manual_seed(9)
    peer = RobertaForMaskedLM(encoder.model.config).eval()
    torch.save((peer if prefix else peer.roberta).state_dict(), tmp_path / 'pytorch_model.bin')
    report = load_checkpoint(encoder, tmp_path / 'pytorch_model.bin', prefix='text_encoder')
    assert report.format == 'Hugging Face RoBERTa'
    assert (report.missing, report.unexpected) == ([], [])
    assert {key.split('.')[0] for key in report.skipped} == ({'lm_head'} if prefix else set())
    ids = torch.randint(5, 261, (2, 7))
    real = torch.ones(2, 7).bool()
    torch.testing.assert_close(encoder(ids, real), peer.roberta(ids).last_hidden_state)
    # the same file for a whole model
    model = build()
    with pytest.raises(ValueError, match=r"more than half.*allow_missing=\['image_encoder',.*'cross_modal', 'heads'\]"):
        load_checkpoint(model, tmp_path / 'pytorch_model.bin')
    report = load_checkpoint(model, tmp_path / 'pytorch_model.bin', allow_missing=True)
    assert all(key.startswith('text_encoder.model.') for key in report.loaded)
    torch.testing.assert_close(model.text_encoder(ids, real), encoder(ids, real))


def test_our_own_checkpoints_are_read_as_they_are(tmp_path):
    model, other = build(), build()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    torch.save({'state_dict': other.state_dict()}, tmp_path / 'ours.pth')
    report = load_checkpoint(model, tmp_path / 'ours.pth', strict=True)
    assert report.format == 'florence_mm METER'
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_a_layer_with_a_part_missing():
    with pytest.raises(ValueError, match=re.escape('has attention.self.query.weight and not all of query, key, value')):
        join_projections({'attention.self.query.weight': torch.zeros(2, 2)})
