"""State dicts of whole detectors in mmdet's and detectron2's layout give the outputs of mmdet's neck and head."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN, DyHead
from public_detectors import (
    CHANNELS,
    CLASSES,
    FPN_CFG,
    in_detectron2_layout,
    mmdet_detector,
    our_detector,
    peer_with_biases,
    picture,
    scattered,
)
from torch import nn

from florence_mm.models.checkpoints import export_state_dict, load_checkpoint
from florence_mm.models.checkpoints.loading import load_tensors
from florence_mm.models.heads import DynamicHead


def test_mmdet_detector(tmp_path):
    peer, ours = scattered(mmdet_detector()), our_detector()
    torch.save({'meta': {'epoch': 24}, 'state_dict': peer.state_dict()}, tmp_path / 'atss.pth')
    report = load_checkpoint(ours, tmp_path / 'atss.pth', strict=True)
    assert report.format == 'mmdet DyHead' and not report.unexpected
    with torch.no_grad():
        got, wanted = (model.double()(picture().double()) for model in (ours, peer))
    assert len(got) == 3 and len(got[0]) == 5
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    assert min(level.std() for level in got[0]) > 0.01
    assert not ours.bbox_head.blocks[1].mid.bias.any()


def test_prefix_takes_the_head_or_the_backbone_alone(tmp_path):
    peer = scattered(mmdet_detector())
    torch.save(peer.state_dict(), tmp_path / 'atss.pth')
    ours = our_detector()
    head = load_checkpoint(ours.bbox_head, tmp_path / 'atss.pth', prefix='bbox_head', strict=True)
    assert head.skipped['neck.lateral_convs.0.conv.weight'] == 'not under bbox_head.'
    load_checkpoint(ours.backbone, tmp_path / 'atss.pth', prefix='backbone', strict=True)
    torch.manual_seed(3)
    feats = [torch.randn(1, CHANNELS, *size) for size in ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))]
    with torch.no_grad():
        wanted = peer.bbox_head(peer.neck[1](feats))
        torch.testing.assert_close(ours.bbox_head(feats), wanted, atol=1e-4, rtol=1e-4)


def test_backbones_other_than_swin_keep_mmdets_names(tmp_path):
    neck = scattered(DyHead(CHANNELS, CHANNELS, num_blocks=1))
    state = {f'neck.1.{key}': value for key, value in neck.state_dict().items()}
    torch.save({**state, 'backbone.conv1.weight': torch.ones(4, 3, 7, 7)}, tmp_path / 'resnet.pth')
    detector = nn.Module()
    detector.backbone = nn.Module()
    detector.backbone.conv1 = nn.Conv2d(3, 4, 7, bias=False)
    detector.bbox_head = DynamicHead(CLASSES, CHANNELS, CHANNELS, num_blocks=1, offset_mode='legacy')
    report = load_checkpoint(detector, tmp_path / 'resnet.pth')
    assert 'backbone.conv1.weight' in report.loaded and detector.backbone.conv1.weight.eq(1).all()
    assert {key.split('.')[1] for key in report.missing} == {'atss_cls', 'atss_reg', 'atss_centerness', 'scales'}


def test_detectron2_detector(tmp_path):
    backbone = scattered(our_detector().backbone, 7)
    fpn, dyhead, head = peer_with_biases()
    state = in_detectron2_layout(backbone, fpn, dyhead, head)
    assert state['backbone.dyhead_tower.1.DyConv.0.conv.bias'].any()
    torch.save({'model': {key: value.detach() for key, value in state.items()}}, tmp_path / 'dyhead.pth')
    ours = our_detector()
    report = load_checkpoint(ours, tmp_path / 'dyhead.pth', strict=True)
    assert report.format == 'DyHead' and not report.unexpected and not report.missing
    assert report.skipped['pixel_mean'] == 'part of the data preprocessor or the anchors'
    assert set(report.skipped.values()) == {report.skipped['pixel_mean'], 'computed by the model'}
    with torch.no_grad():
        wanted = head(dyhead(fpn(backbone(picture()))))
        torch.testing.assert_close(ours(picture()), wanted, atol=1e-4, rtol=1e-4)
        # the bias before the group norm is no redundancy: without it the outputs differ
        for block in ours.bbox_head.blocks:
            for part in (block.high, block.mid, block.low):
                part.bias.zero_()
        assert (ours(picture())[0][0] - wanted[0][0]).abs().max() > 1e-3


def test_a_stem_alone_is_listed_as_left_out(tmp_path):
    state = in_detectron2_layout(our_detector().backbone, *peer_with_biases())
    state = {key: value.detach() for key, value in state.items() if 'bottom_up' not in key}
    state['backbone.backbone.bottom_up.stem.conv1.weight'] = torch.ones(4, 3, 7, 7)
    torch.save({'model': state}, tmp_path / 'r50.pth')
    report = load_checkpoint(our_detector(), tmp_path / 'r50.pth', allow_missing=['backbone'])
    assert report.skipped['backbone.backbone.bottom_up.stem.conv1.weight'] == 'of a backbone other than Swin or ResNet'
    assert all(key.startswith('backbone.') for key in report.missing)


def test_our_own_layout_is_read_as_it_is(tmp_path):
    source, target = scattered(our_detector()), our_detector()
    torch.save(source.state_dict(), tmp_path / 'own.pth')
    assert load_checkpoint(target, tmp_path / 'own.pth', strict=True).format == 'florence_mm'
    with torch.no_grad():
        torch.testing.assert_close(target(picture()), source(picture()), rtol=0, atol=0)


def caffe_resnet():
    """torchvision's ResNet with the stride of a block in its first convolution, as MSRA's, in two blocks a stage."""
    from torchvision.models.resnet import Bottleneck, ResNet

    peer = ResNet(Bottleneck, [2, 2, 2, 2])
    for stage in (peer.layer2, peer.layer3, peer.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for name, buffer in scattered(peer).named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5) if name.endswith('var') else nn.init.uniform_(buffer, -0.5, 0.5)
    return peer


def detectron2_names(peer):
    """The tensors of detectron2's modules of the same parts, written down by hand."""
    convs = {'stem.conv1': (peer.conv1, peer.bn1)}
    for i, stage in enumerate((peer.layer1, peer.layer2, peer.layer3, peer.layer4)):
        for j, block in enumerate(stage):
            place = f'res{i + 2}.{j}'
            convs |= {f'{place}.conv{k}': (getattr(block, f'conv{k}'), getattr(block, f'bn{k}')) for k in (1, 2, 3)}
            if block.downsample is not None:
                convs[f'{place}.shortcut'] = tuple(block.downsample)
    state = {}
    for name, (conv, norm) in convs.items():
        state[f'{name}.weight'] = conv.weight.detach()
        for kind in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'{name}.norm.{kind}'] = getattr(norm, kind).detach()
    return {f'backbone.backbone.bottom_up.{key}': value for key, value in state.items()}


class TwoBlocks(ResNet):
    arch_settings = {50: (ResNet.arch_settings[50][0], (2, 2, 2, 2))}


def resnet_detector(style='caffe'):
    ours = our_detector()
    ours.backbone = TwoBlocks(50, out_indices=(1, 2, 3), norm_cfg={'type': 'BN'}, style=style)
    ours.neck = FPN(**{**FPN_CFG, 'in_channels': [512, 1024, 2048]})
    return ours.eval()


def detectron2_detector_with_resnet(peer):
    fpn, dyhead, head = peer_with_biases()
    fpn = scattered(FPN(**{**FPN_CFG, 'in_channels': [512, 1024, 2048]}))
    state = in_detectron2_layout(our_detector().backbone, fpn, dyhead, head)
    state = {key: value.detach() for key, value in state.items() if 'bottom_up' not in key}
    return {**state, **detectron2_names(peer)}, lambda maps: head(dyhead(fpn(maps)))


def test_detectron2_resnet(tmp_path):
    peer = caffe_resnet()
    state, rest = detectron2_detector_with_resnet(peer)
    ours = resnet_detector()
    report = load_tensors(ours, dict(state), 'r50.pth')
    assert report.format == 'DyHead' and not report.unexpected and not report.notes
    assert all(key.endswith('num_batches_tracked') for key in report.missing)
    maps, x = [], peer.maxpool(peer.relu(peer.bn1(peer.conv1(picture()))))
    with torch.no_grad():
        for stage in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
            x = stage(x)
            maps.append(x)
        torch.testing.assert_close(ours.backbone(picture()), tuple(maps[1:]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours(picture()), rest(maps[1:]), atol=1e-3, rtol=1e-3)
    # and back, bit by bit
    exported = export_state_dict(ours.state_dict(), 'DyHead')
    wanted = {key: value for key, value in state.items() if not key.startswith(('pixel_', 'head.anchor'))}
    assert exported.tensors.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in exported.tensors.items())
    assert all(key.endswith('num_batches_tracked') for key in exported.left_out)
    # strides elsewhere, with the same shapes, are refused
    with pytest.raises(ValueError, match="r50.pth .* style of the backbone='caffe'"):
        load_tensors(resnet_detector('pytorch'), dict(state), 'r50.pth')
