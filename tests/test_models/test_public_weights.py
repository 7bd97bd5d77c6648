"""Public weights by name: what their package builds of full size loads, tensor by tensor, into the entry's config.

Models are on torch's meta device: names, shapes and settings are compared, and no values.
"""

import json
import re
import warnings

import pytest
import torch
from mmengine.registry import DefaultScope
from public_models import official_swin

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import model_entries, model_entry
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.models.checkpoints import FORMATS
from florence_mm.models.checkpoints.loading import load_tensors
from florence_mm.registry import MODELS

ENTRIES = {name: entry for name, entry in model_entries().items() if entry.weights and entry.weights.source}


def ours(name):
    cfg = load_config(model_entry(name).config)
    drop_pretrained(cfg.model, 'model')
    with DefaultScope.overwrite_default_scope('florence_mm'), torch.device('meta'):
        return MODELS.build(cfg.model)


def load(name, state, path='weights.pth'):
    """The report of loading; every tensor of the model and of the file is used."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # copying to the meta device does nothing
        report = load_tensors(ours(name), state, path)
    assert report.format == ENTRIES[name].weights.layout
    assert (report.missing, report.unexpected, report.resized) == ([], [], {})
    return report


def open_clips(kind, folder):
    """The state dict of an open_clip model, and its config beside the file."""
    import open_clip

    config = open_clip.get_model_config(kind)
    (folder / 'open_clip_config.json').write_text(json.dumps({'model_cfg': config}))
    with torch.device('meta'):
        return open_clip.model.CLIP(**config).state_dict()


CLIPS = {
    'clip_vit-b-32_openai': 'ViT-B-32-quickgelu',
    'clip_vit-b-16_openai': 'ViT-B-16-quickgelu',
    'clip_vit-l-14_openai': 'ViT-L-14-quickgelu',
    'clip_vit-l-14-336_openai': 'ViT-L-14-336-quickgelu',
    'clip_vit-b-32_laion2b': 'ViT-B-32',
    'clip_vit-b-16_laion2b': 'ViT-B-16',
    'clip_vit-l-14_laion2b': 'ViT-L-14',
    'clip_vit-l-14_datacomp': 'ViT-L-14',
    'clip_vit-h-14_laion2b': 'ViT-H-14',
    'clip_rn50_openai': 'RN50-quickgelu',
    'clip_rn101_openai': 'RN101-quickgelu',
}


def test_every_clip_is_tested_and_every_layout_known():
    assert {name for name, entry in ENTRIES.items() if entry.weights.layout == 'CLIP'} == set(CLIPS)
    for name, entry in ENTRIES.items():
        assert entry.weights.layout in FORMATS, name
        assert entry.weights.licence and entry.weights.url.startswith(('https://', 'hf://')), name


@pytest.mark.parametrize('name', CLIPS)
def test_open_clips(name, tmp_path):
    state = open_clips(CLIPS[name], tmp_path)
    report = load(name, state, tmp_path / 'open_clip_pytorch_model.bin')
    assert report.skipped == {} and report.notes == []
    # the other activation is refused
    other = ours(name)
    towers = [tower for tower in (other.image_encoder, other.text_encoder) if hasattr(tower, 'act')]  # no ResNet
    for tower in towers:
        tower.act = {'gelu': 'quick_gelu', 'quick_gelu': 'gelu'}[tower.act]
    with pytest.raises(ValueError, match='need act='):
        load_tensors(other, state, tmp_path / 'open_clip_pytorch_model.bin')


def test_every_published_figure_names_the_file_it_is_from():
    for name, entry in ENTRIES.items():
        for result in entry.results:
            source = re.search(r'\((.*)\)$', result['Dataset'])
            assert source and re.match(r'\S+ of [\w-]+/[\w-]+$|abstract of arXiv \d{4}\.\d{5}$', source[1]), name


def test_openmmlabs_hash_begins_with_what_its_address_ends_with():
    files = {name: entry.weights for name, entry in ENTRIES.items() if 'download.openmmlab.com' in entry.weights.url}
    assert len(files) >= 2
    for name, weights in files.items():
        assert re.search(r'-([0-9a-f]{8})\.pth$', weights.url)[1] == weights.sha256, name


def test_openais_hash_is_in_its_address():
    for name, entry in ENTRIES.items():
        if 'openaipublic' in entry.weights.url:
            assert entry.weights.sha256 == entry.weights.url.split('/')[-2], name


@pytest.mark.parametrize(
    ('name', 'pixel'),
    # times 255, from -1 to 1; open_clip's table of weights says which
    [('clip_vit-l-14_laion2b', [-1.0, 0.0, 1.0]), ('clip_vit-b-32_openai', None), ('clip_vit-l-14_datacomp', None)],
)
def test_pixels_are_normalised_as_in_training(name, pixel):
    cfg = load_config(model_entry(name).config)
    cfg.model.data_preprocessor.type = 'florence_mm.ImageTextDataPreprocessor'
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    images = torch.tensor([0, 127.5, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    got = preprocessor({'inputs': images})['inputs'][0, :, 0]
    if pixel:
        expected = torch.tensor(pixel).expand(3, 3)
    else:
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        mean, std = (torch.tensor(x)[:, None] for x in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        expected = (torch.tensor([0, 0.5, 1]) - mean) / std
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_images_are_cut_as_open_clip_cuts_them(tmp_path):
    import numpy as np
    from mmengine.dataset import Compose
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.transform import image_transform
    from PIL import Image

    rows = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    image = Image.fromarray(rows).resize((410, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / 'a.png')
    cfg = load_config(model_entry('clip_vit-l-14-336_openai').config)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        packed = Compose(cfg.test_dataloader.dataset.pipeline)({'img_path': str(tmp_path / 'a.png'), 'text': 'a'})
    got = preprocessor({'inputs': [packed['inputs']]})['inputs'][0]
    theirs = image_transform(336, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)(image)
    assert got.shape == theirs.shape == (3, 336, 336)
    torch.testing.assert_close(got, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('atss_r50-caffe_fpn_dyhead_coco_mmdet', 'dyhead/atss_r50-caffe_fpn_dyhead_1x_coco.py'),
        ('atss_swin-l_fpn_dyhead_coco_mmdet', 'dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py'),
    ],
)
def test_mmdets(name, config):
    from mmdet.registry import MODELS as MMDET

    cfg = load_config(f'mmdet::{config}')
    drop_pretrained(cfg.model, 'model')
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MMDET.build(cfg.model).to('meta').state_dict()
    model, theirs = load_config(model_entry(name).config).model, cfg.model
    report = load_with_meta(name, state, cfg.pretty_text)
    assert set(report.skipped.values()) <= {'computed by the model'}
    pixels = ('mean', 'std', 'bgr_to_rgb', 'pad_size_divisor')
    assert [model.data_preprocessor[key] for key in pixels] == [theirs.data_preprocessor[key] for key in pixels]
    wanted = dict(theirs.test_cfg)
    assert {key: model.test_cfg[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ('name', 'mean', 'std', 'rgb'),
    [  # detectron2's default pixels, and those of the config of Swin-T
        ('atss_r50-caffe_fpn_dyhead_coco_microsoft', [103.53, 116.28, 123.675], [1, 1, 1], False),
        ('atss_swin-t_fpn_dyhead_coco_microsoft', [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True),
    ],
)
def test_microsofts_detectors_are_set_as_in_their_code(name, mean, std, rgb):
    model = load_config(model_entry(name).config).model
    pixels = model.data_preprocessor
    assert (pixels.mean, pixels.std, pixels.bgr_to_rgb, pixels.pad_size_divisor) == (mean, std, rgb, 128)
    assert model.neck.relu_before_extra_convs and model.bbox_head.offset_mode == 'legacy'
    assert model.backbone.get('style') == (None if rgb else 'caffe')
    limits = {'nms_pre': 1000, 'score_thr': 0.05, 'max_per_img': 100, 'nms': {'type': 'nms', 'iou_threshold': 0.6}}
    assert {key: model.test_cfg[key] for key in limits} == limits


def load_with_meta(name, state, config):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        report = load_tensors(ours(name), state, 'weights.pth', meta={'config': config})
    assert report.format == ENTRIES[name].weights.layout and report.notes == []
    assert (report.missing, report.unexpected, report.resized) == ([], [], {})
    return report


@pytest.mark.parametrize(
    ('name', 'sizes', 'classes'),
    [
        ('video_swin-t_kinetics400_in1k', ('tiny', 768), 400),
        ('video_swin-s_kinetics400_in1k', ('small', 768), 400),
        ('video_swin-b_kinetics600_in22k', ('base', 1024), 600),
    ],
)
def test_video_swins(name, sizes, classes):
    from mmaction.registry import MODELS as MMACTION

    arch, width = sizes
    backbone = {'type': 'SwinTransformer3D', 'arch': arch, 'pretrained': None, 'pretrained2d': False}
    backbone |= {'patch_size': (2, 4, 4), 'window_size': (8, 7, 7), 'patch_norm': True}
    head = {'type': 'I3DHead', 'num_classes': classes, 'in_channels': width}
    with DefaultScope.overwrite_default_scope('mmaction'):
        peer = MMACTION.build({'type': 'Recognizer3D', 'backbone': backbone, 'cls_head': head}).to('meta')
    # the public code calls the last norm otherwise than mmaction2
    load(name, {key.replace('backbone.norm3.', 'backbone.norm.'): value for key, value in peer.state_dict().items()})


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('swin-t_imagenet1k', 'tiny_patch4_window7_224'),
        ('swin-s_imagenet1k', 'small_patch4_window7_224'),
        ('swin-b_imagenet1k', 'base_patch4_window7_224'),
        ('swin-b_imagenet1k-384', 'base_patch4_window12_384'),
        ('swin-l_imagenet1k_in22k', 'large_patch4_window7_224'),
        ('swin-l_imagenet1k-384_in22k', 'large_patch4_window12_384'),
    ],
)
def test_swins(name, kind):
    import timm

    with torch.device('meta'):
        peer = timm.create_model(f'swin_{kind}')
    report = load(name, official_swin(peer.state_dict()))
    assert set(report.skipped.values()) <= {'computed by the model'} and report.notes == []
    # the file of an entry is that of its size
    for entry in ENTRIES.values():
        if entry.config == ENTRIES[name].config:
            assert f'swin_{kind}' in entry.weights.url, entry.name


@pytest.mark.parametrize('arch', ['t', 'b'])
def test_the_sizes_of_unicls_towers(arch):
    """Swin's published parameters without its head, and those of the text tower and both projections."""
    swin, width = {'t': (28288354 - 768 * 1000 - 1000, 768), 'b': (87768224 - 1024 * 1000 - 1000, 1024)}[arch]
    model = ours(f'unicl_swin-{arch}_in21k-yfcc14m')
    assert sum(p.numel() for p in model.image_encoder.parameters()) == swin
    assert model.image_projection.shape == (width, 512) and model.text_projection.shape == (512, 512)
    cfg = load_config(model_entry(f'unicl_swin-{arch}_in21k-yfcc14m').config)
    steps = {step['type'].split('.')[-1]: step for step in cfg.test_dataloader.dataset.pipeline}
    assert (steps['ResizeEdge']['scale'], steps['CenterCrop']['crop_size']) == (256, 224)


def test_meters_image_encoder_is_clips_without_its_last_block():
    with torch.device('meta'):
        import open_clip

        clip = open_clip.model.CLIP(**open_clip.get_model_config('ViT-B-16-quickgelu')).visual
    model = ours('meter_clip-vit-b-16_roberta_vqav2')
    theirs = {key.replace('transformer.', ''): value.shape for key, value in clip.state_dict().items()}
    theirs = {key: shape for key, shape in theirs.items() if not key.startswith('resblocks.11.') and key != 'proj'}
    theirs['positional_embedding'] = torch.Size([1 + (576 // 16) ** 2, 768])
    assert {key: value.shape for key, value in model.image_encoder.state_dict().items()} == theirs
    assert model.cross_modal.image_pool == 'first' and model.image_encoder.act == 'quick_gelu'
