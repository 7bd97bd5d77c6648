"""florence-mm convert: files, folders and shards as packages write and expect them, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors import safe_open
from safetensors.torch import save_file

from florence_mm.commands import main as command_line
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import load_checkpoint, read_checkpoint, write_safetensors
from florence_mm.models.text import CLIPTextTower

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

from public_models import hf_clip_text, swin, timm_swin, two_towers

SWIN = {'arch': {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 2]}, 'img_size': 32, 'window_size': 4}


@pytest.fixture
def convert(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder; returns its output, or the sentence of its refusal."""
    monkeypatch.chdir(tmp_path)
    # a logger keeps the stream of the test that made it
    monkeypatch.setattr(MMLogger, '_instance_dict', type(MMLogger._instance_dict)())

    def run(*arguments):
        try:
            status = command_line.main(['convert', *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        output, errors = capsys.readouterr()
        last = errors.strip().rpartition('\n')[2]
        assert status == (2 if last.startswith('error: ') else 0), errors
        return last.removeprefix('error: ') if status else output

    return run


def save(model, path, **meta):
    return write_safetensors(path, model.state_dict(), meta)


def test_metadata_and_settings_go_with_the_weights_both_ways(convert):
    hf_clip_text(hidden_act='gelu', layer_norm_eps=1e-6).save_pretrained('theirs')
    convert('theirs', 'ours.safetensors')
    meta = read_checkpoint('ours.safetensors')[1]
    assert meta['converted_from'] == 'Hugging Face CLIP'
    settings = {key: meta['settings'][key] for key in ('act', 'norm_eps', 'causal')}
    assert settings == {'act': 'gelu', 'norm_eps': 1e-6, 'causal': True}
    # what the config beside the file said counts when ours is loaded from another folder
    arch = {'embed_dims': 64, 'num_layers': 2, 'num_heads': 1}
    for act in ('quick_gelu', 'gelu'):
        tower = CLIPTextTower(arch, vocab_size=50, context_length=12, act=act, norm_eps=1e-6)
        if act == 'gelu':
            assert load_checkpoint(tower, 'ours.safetensors', prefix='text_encoder').notes == []
        else:
            with pytest.raises(ValueError, match="need act='gelu' and CLIPTextTower has act='quick_gelu'"):
                load_checkpoint(tower, 'ours.safetensors', prefix='text_encoder')
    printed = convert('ours.safetensors', 'back', '--to', 'hugging-face-clip')
    assert 'note' not in printed and 'tensors written to back/model.safetensors and back/config.json' in printed
    config, before = (json.loads(Path(folder, 'config.json').read_text()) for folder in ('back', 'theirs'))
    assert {key: config[key] for key in before} == before
    theirs, back = (read_checkpoint(folder)[0] for folder in ('theirs', 'back'))
    assert theirs.keys() == back.keys() and all(torch.equal(theirs[key], back[key]) for key in theirs)


def test_class_names_are_kept(convert):
    meta = {'dataset_meta': {'classes': ['cat', 'dog']}, 'epoch': 3}
    save(swin(), 'ours.safetensors', **meta)
    convert('ours.safetensors', 'mm.pth', '--to', 'mmdet-or-mmpretrain-swin')
    content = torch.load('mm.pth', weights_only=True)
    assert content['meta']['dataset_meta'] == meta['dataset_meta'] and content['state_dict'].keys()
    assert 'florence_mm_version' not in content['meta']
    convert('mm.pth', 'again.safetensors')
    assert read_checkpoint('again.safetensors')[1]['dataset_meta'] == meta['dataset_meta']


def test_a_part_of_a_model_in_another_type(convert):
    model = two_towers()
    torch.save({'state_dict': model.state_dict()}, 'run.pth')
    printed = convert('run.pth', 'image.safetensors', '--to', 'timm_swin', '--prefix', 'image_encoder')
    assert 'run.pth is UniCL' in printed and 'not in the file, made by timm unless num_classes=0: head' in printed
    peer = timm_swin()
    peer.load_state_dict(read_checkpoint('image.safetensors')[0], strict=True)
    convert('run.pth', 'half.safetensors', '--to', 'timm_swin', '--prefix', 'image_encoder', '--dtype', 'bfloat16')
    with safe_open('half.safetensors', 'pt') as opened:
        half = opened.get_tensor('norm.weight')
    assert half.dtype == torch.bfloat16 and torch.equal(half, model.image_encoder.norm.weight.bfloat16())
    torch.nn.init.constant_(model.logit_scale, 1e6)
    torch.save(model.state_dict(), 'large.pth')
    refused = convert('large.pth', 'a.safetensors', '--dtype', 'float16')
    assert refused.startswith('large.pth has values in logit_scale that are too large for float16')
    assert not Path('a.safetensors').exists()


def test_public_to_public_goes_through_ours(convert):
    torch.save(timm_swin().state_dict(), 'timm.pth')
    convert('timm.pth', 'official.pth', '--to', 'swin or coswin')
    convert('official.pth', 'back.pth', '--to', 'TIMM Swin')
    one, other = (torch.load(name, weights_only=True) for name in ('timm.pth', 'back.pth'))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def in_shards(state, folder):
    folder.mkdir()
    names, places = list(state), {}
    for number, keys in enumerate((names[::2], names[1::2]), 1):
        save_file({key: state[key] for key in keys}, folder / f'model-{number:05d}-of-00002.safetensors')
        places |= dict.fromkeys(keys, f'model-{number:05d}-of-00002.safetensors')
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))
    return places


def test_models_in_several_files(convert):
    state = timm_swin().state_dict()
    places = in_shards(state, Path('cut'))
    for source in ('cut', 'cut/model.safetensors.index.json'):
        convert(source, 'whole.safetensors', '--to', 'timm-swin')
        whole = read_checkpoint('whole.safetensors')[0]
        assert whole.keys() == state.keys() and all(torch.equal(state[key], whole[key]) for key in state)
    index = Path('cut/model.safetensors.index.json')
    for change, says in [
        ({'norm.weight': '../whole.safetensors'}, "places norm.weight in '../whole.safetensors', which is no file"),
        ({'norm.weight': 'model-00003-of-00002.safetensors'}, 'model-00003-of-00002.safetensors, one of the 3 of'),
        ({'more': places['norm.weight']}, 'and model.safetensors.index.json disagree on more; download'),
    ]:
        index.write_text(json.dumps({'weight_map': {**places, **change}}))
        assert says in convert('cut', 'a.safetensors')
    for content in ('{', '[]', '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '\udcff'):
        index.write_text(content, errors='surrogateescape')
        assert 'is no index of weights: it has no weight_map' in convert('cut', 'a.safetensors')
    assert 'model-00001-of-00002.safetensors is file 1 of the 2' in convert(
        'cut/model-00001-of-00002.safetensors', 'a.safetensors'
    )


def test_a_file_in_our_layout_needs_a_target(convert):
    detector = {'bbox_head.blocks.0.offset_conv.weight': torch.ones(27, 8, 3, 3), 'backbone.norm.weight': torch.ones(8)}
    torch.save(detector, 'ours.pth')
    refused = convert('ours.pth', 'a.safetensors')
    assert refused == (
        "ours.pth is in our layout already (florence_mm); say with --to what to convert it to: 'DyHead', "
        "'mmdet DyHead', 'mmengine run'; or --to florence_mm to write it as it is"
    )
    convert('ours.pth', 'same.safetensors', '--to', 'florence_mm')
    assert read_checkpoint('same.safetensors')[0].keys() == detector.keys()
    convert('ours.pth', 'part.safetensors', '--prefix', 'backbone')
    assert read_checkpoint('part.safetensors')[0].keys() == {'norm.weight'}


def test_a_config_tells_the_settings(convert):
    save(two_towers(norm_eps=1e-5, causal=False), 'ours.safetensors')
    text = {'type': 'CLIPTextTower', 'arch': {'embed_dims': 64, 'num_layers': 2, 'num_heads': 1}, 'vocab_size': 600}
    model = {
        'type': 'UniCL',
        'image_encoder': {'type': 'CoSwin', **SWIN},
        'text_encoder': {**text, 'context_length': 12, 'norm_eps': 1e-5, 'causal': False},
        'tokenizer': {'type': 'CLIPTokenizer', 'vocab_size': 600, 'context_length': 12},
        'embed_dims': 6,
    }
    Path('config.py').write_text(f"default_scope = 'florence_mm'\nmodel = {model}\n")
    refused = convert('ours.safetensors', 'a.pth', '--to', 'clip', '--config', 'config.py')
    assert refused == (
        "ours.safetensors cannot be written as 'CLIP': its weights need causal=False, and CLIP computes with True"
    )
    Path('config.py').write_text(f"default_scope = 'florence_mm'\nmodel = {model}\n".replace('False', 'True'))
    printed = convert('ours.safetensors', 'folder', '--to', 'hugging face clip', '--config', 'config.py')
    assert 'note' not in printed
    config = json.loads(Path('folder/config.json').read_text())
    assert (config['layer_norm_eps'], config['hidden_act'], config['num_attention_heads']) == (1e-5, 'quick_gelu', 1)
    printed = convert('ours.safetensors', 'a.pth', '--to', 'clip')
    assert 'note: CLIP computes with norm_eps=1e-05, and the file does not tell its own' in printed
    assert 'is of use with --to alone' in convert('ours.safetensors', 'a.safetensors', '--config', 'config.py')


CONV = "its patch embedding and patch merging are CoSwin's convolutions, which {} lacks"
REFUSED = {
    'convolutions in timm': (dict(conv_embed=True), 'timm Swin', 'does not fit'),
    'one stage with a convolution': (
        dict(conv_embed=True, arch={'embed_dims': 8, 'depths': [1], 'num_heads': [1]}),
        'torchvision Swin',
        CONV.format('torchvision'),
    ),
    'a layer scale': (
        dict(layer_scale_init_value=0.1),
        'mmdet or mmpretrain Swin',
        'gamma, a layer scale, which mmdet',
    ),
    'positions': (dict(use_abs_pos_embed=True), 'timm Swin', 'absolute position embeddings, which timm lacks'),
    'windows that differ': (dict(img_size=16), 'Hugging Face Swin', 'tables have [9, 49] rows, and'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_a_layout_cannot_hold(convert, case):
    kwargs, to, says = REFUSED[case]
    save(CoSwin(**{**SWIN, 'conv_embed': False, **kwargs}), 'ours.safetensors')
    refused = convert('ours.safetensors', 'a.pth', '--to', to)
    assert says in refused and 'ours.safetensors' in refused and not Path('a.pth').exists()


def test_a_deformable_convolution_with_a_bias(convert):
    state = {'bbox_head.blocks.0.offset_conv.weight': torch.ones(27, 16, 3, 3)}
    state |= {'bbox_head.blocks.0.mid.weight': torch.ones(16, 16, 3, 3), 'bbox_head.blocks.0.mid.bias': torch.zeros(16)}
    torch.save(state, 'zero.pth')
    assert 'tensors written' in convert('zero.pth', 'mm.pth', '--to', 'mmdet dyhead')
    assert 'neck.1.dyhead_blocks.0.spatial_conv_mid.conv.bias' not in torch.load('mm.pth')['state_dict']
    state['bbox_head.blocks.0.mid.bias'][3] = -0.25
    torch.save(state, 'bias.pth')
    refused = convert('bias.pth', 'a.pth', '--to', 'mmdet dyhead')
    assert 'bbox_head.blocks.0.mid.bias is not zero (up to 0.25), and deformable convolutions of mmdet have' in refused


def test_padding_of_small_maps_is_no_swin_models(convert):
    save(swin(), 'ours.safetensors', settings={'pad_small_map': True})
    refused = convert('ours.safetensors', 'folder', '--to', 'hugging-face-swin')
    assert 'its weights need pad_small_map=True, and a SwinModel of transformers computes with False' in refused
    refused = convert('ours.safetensors', 'a.pth', '--to', 'timm swin')
    assert 'need pad_small_map=True, and timm Swin computes with False' in refused


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['s.pth', 'a.pth'], 'a.pth must end in .safetensors'),
        (
            ['s.pth', 'a.onnx', '--to', 'timm-swin'],
            'a.onnx must end in .safetensors or .pth, .pt, .bin, .ckpt, .pkl, to',
        ),
        (['s.pth', 'folder', '--to', 'timm-swin'], 'folder must end in .safetensors or .pth'),
        (['s.pth', 'a.pth', '--to', 'tim swin'], "no checkpoint format named 'tim swin'; did you mean 'timm Swin'?"),
        (
            ['s.pth', 'a.pth', '--to', 'zebra'],
            "known are 'florence_mm', 'BLIP', 'BLIP-2', 'BLIP-2 OPT', 'BLIP-2 T5', 'C",
        ),
        (
            ['s.pth', 'a.pth', '--to', 'florence-mm METER'],
            "'florence_mm METER' can be read and not written",
        ),
        (['s.pth', 's.pth', '--to', 'timm-swin'], 'the target s.pth is the input s.pth, which it would replace'),
        (['s.pth', 'a.pth', '--to', 'dyhead'], "does not fit 'DyHead': its keys begin with"),
        (['empty', 'a.safetensors'], 'checkpoint empty does not exist as a file, and the folder of that name has none'),
        (['none.pth', 'a.safetensors'], 'checkpoint none.pth does not exist'),
        (['s.pth', 'a.safetensors', '--prefix', 'zebra'], "s.pth (Swin or CoSwin) has no keys under 'zebra.'"),
    ],
)
def test_arguments_that_do_not_fit_together(convert, arguments, says):
    torch.save(swin().state_dict(), 's.pth')
    Path('empty').mkdir()
    refused = convert(*arguments)
    assert says in refused and '\n' not in refused and not Path('a.pth').exists()


def test_a_folder_is_never_written_over_its_own_source(convert):
    hf_clip_text().save_pretrained('theirs')
    before = Path('theirs/model.safetensors').read_bytes()
    assert 'is the input' in convert('theirs', 'theirs', '--to', 'hugging-face-clip')
    assert Path('theirs/model.safetensors').read_bytes() == before
