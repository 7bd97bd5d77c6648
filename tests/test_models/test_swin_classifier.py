"""Swin as a classifier: the public layouts with their heads, in both directions, against the packages' own logits."""

import pytest
import torch
from public_models import ARCH, official_swin, randomise, timm_classifier

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import model_entry
from florence_mm.models.checkpoints import convert_state_dict, export_state_dict
from florence_mm.models.checkpoints.loading import load_tensors
from florence_mm.registry import MODELS

CLASSES = 5


def classifier(backbone=None, classes=CLASSES):
    own = {'type': 'florence_mm.CoSwin', 'arch': ARCH, 'conv_embed': False, 'img_size': 64, 'window_size': 4}
    config = {
        'type': 'mmpretrain.ImageClassifier',
        'backbone': own if backbone is None else backbone,
        'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
        'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': classes, 'in_channels': 64},
    }
    return randomise(MODELS.build(config)).double()


def same_logits(ours, theirs):
    torch.manual_seed(5)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, mode='tensor'), theirs(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(('layout', 'found'), [(official_swin, 'Swin or CoSwin'), (dict, 'timm Swin')])
def test_a_public_classifier_gives_its_logits(layout, found):
    ours, peer = classifier(), timm_classifier().double()
    report = load_tensors(ours, layout(peer.state_dict()), 'swin.pth')
    assert report.format == found and not report.missing and not report.unexpected
    assert set(report.skipped.values()) <= {'computed by the model'}
    same_logits(ours, peer)


def test_mmpretrains_classifier():
    kind = {'type': 'mmpretrain.SwinTransformer', 'img_size': 64, 'window_size': 4, 'out_indices': (2,)}
    peer = classifier({**kind, 'arch': dict(ARCH)})
    ours = classifier()
    report = load_tensors(ours, peer.state_dict(), 'swin.pth')
    assert report.format == 'mmdet or mmpretrain Swin' and not report.missing and not report.unexpected
    same_logits(ours, lambda x: peer(x, mode='tensor'))
    # and back, into a model of their package
    exported = export_state_dict(ours.state_dict(), 'mmdet or mmpretrain Swin')
    keys = randomise(peer, 7).double().load_state_dict(exported.tensors, strict=False)
    assert not keys.unexpected_keys and not exported.left_out
    assert not [key for key in keys.missing_keys if not key.endswith('relative_position_index')]
    same_logits(ours, lambda x: peer(x, mode='tensor'))


@pytest.mark.parametrize('prefixed', [True, False], ids=['a run', 'a converted file'])
def test_the_way_back(prefixed):
    ours, peer = classifier(), timm_classifier().double()
    state = ours.state_dict()
    if not prefixed:
        state = convert_state_dict(official_swin(peer.state_dict()))[1]
        assert state.keys() >= {'head.weight', 'head.bias'}
        load_tensors(ours, state, 'ours.safetensors')
    exported = export_state_dict(state, 'timm Swin')
    assert exported.left_out == {} and exported.absent == {}
    peer.load_state_dict(exported.tensors, strict=False)
    same_logits(ours, peer)
    back = convert_state_dict(export_state_dict(state, 'Swin or CoSwin').tensors)[1]
    theirs = {key.replace('backbone.', '').replace('head.fc.', 'head.'): v for key, v in ours.state_dict().items()}
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in back)


def test_a_head_of_other_classes_begins_anew():
    ours, peer = classifier(), timm_classifier(7).double()
    before = ours.head.fc.weight.clone()
    report = load_tensors(ours, official_swin(peer.state_dict()), 'swin.pth')
    assert report.missing == ['head.fc.weight', 'head.fc.bias']
    assert 'of another shape ((7, 64) in the file, (5, 64) in the model)' in report.skipped['head.fc.weight']
    assert torch.equal(ours.head.fc.weight, before)
    torch.testing.assert_close(ours.backbone.norm.weight, peer.norm.weight)


def test_other_models_get_no_head():
    """A backbone alone, and a head that is no linear layer."""
    state = official_swin(timm_classifier().state_dict())
    backbone = classifier().backbone
    report = load_tensors(backbone, state, 'swin.pth', strict=True)
    assert {key: why for key, why in report.skipped.items() if key.startswith('head')} == dict.fromkeys(
        ('head.weight', 'head.bias'), 'not part of the backbone'
    )
    del state['head.bias']
    assert convert_state_dict(state)[2]['head.weight'] == 'not part of the backbone'
    # a detector is none of its models: nothing is guessed
    with pytest.raises(ValueError, match=r'nothing in swin.pth .* matches Sequential'):
        load_tensors(torch.nn.Sequential(torch.nn.Linear(2, 2)), state, 'swin.pth')


def test_classes_are_imagenets(monkeypatch):
    """Labels are numbered as in Swin's code: by the sorted names of the folders."""
    from florence_mm import get_model

    small = classifier()
    monkeypatch.setattr('florence_mm.apis.loaded_model.ready_model', lambda cfg, *a: (small, {}, 'cpu'))
    names = get_model('swin-t_imagenet1k', pretrained=False).class_names
    assert len(names) == 1000
    assert [names[i].split(',')[0] for i in (0, 1, 207, 281, 999)] == [
        'tench', 'goldfish', 'golden retriever', 'tabby', 'toilet tissue'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'crop', 'resize'),
    [('swin-b_imagenet1k', True, ('ResizeEdge', 256)), ('swin-b_imagenet1k-384', False, ('Resize', (384, 384)))],
)
def test_pictures_are_prepared_as_in_swins_code(name, crop, resize):
    cfg = load_config(model_entry(name).config)
    steps = {step['type'].split('.')[-1]: step for step in cfg.test_dataloader.dataset.pipeline}
    assert ('CenterCrop' in steps) == crop
    kind, scale = resize
    assert (steps[kind]['scale'], steps[kind]['interpolation'], steps[kind]['backend']) == (scale, 'bicubic', 'pillow')
    assert 'to_rgb' not in cfg.model.data_preprocessor and steps['LoadImage']['type'] == 'florence_mm.LoadImage'
