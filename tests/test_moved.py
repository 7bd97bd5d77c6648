"""Modules of 0.1.0 that moved are found by their old names."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from florence_mm import moved

#: All modules of 0.1.0 by folder, those of ``compat``, which nobody imports, aside.
OF_0_1_0 = {
    '': 'registry version',
    'apis': (
        'activation detection_inferencer doctor inputs model_weights multimodal_inferencer picture_inputs '
        'setup video_inferencer video_inputs'
    ),
    'datasets': (
        'arguments base box_crops clips detection digit_ink digits errors federated few_shot generated '
        'image_folder karpathy manifest mixture msrvtt questions readers scene_backgrounds scene_captions '
        'scene_facts scenes skipping video_list vqa vqa_files'
    ),
    'datasets.merging': 'combine json_lists merge open_images pseudo_boxes readers sources store taxonomy',
    'datasets.transforms': 'formatting geometry loading prompt video',
    'engine': (
        'checkpointing cli_options complexity config_check config_origin dataloading errors host_memory '
        'launch loops parallelize picture_sampler predictions runner samplers seeding signatures smoke '
        'smoke_data smoke_detection smoke_questions tta'
    ),
    'engine.hooks': 'checkpoint class_count class_names invalid_loss run_summary',
    'engine.optim': 'amp constructor muon',
    'evaluation': 'rerank_loop',
    'evaluation.functional': 'captions detection reranking retrieval topk vqa zero_shot',
    'evaluation.metrics': 'captions detection retrieval vqa zero_shot',
    'models.algorithms': (
        'class_features meter preprocessor retrieval_reranker unicl zero_shot_checks zero_shot_detector'
    ),
    'models.backbones': 'arch coswin embeddings pyramid video_coswin window_block',
    'models.checkpoints': 'detectors formats inflation loading meter reading renaming swin',
    'models.heads': 'dyhead_block dynamic_head',
    'models.heads.multimodal': 'caption itm mlm reduction vocabulary vqa',
    'models.multimodal': 'batch co_attention decoding fusion',
    'models.text': 'clip_text clip_tokens roberta token_layout tokenizer tokens',
    'ops': (
        'boxes collectives contrastive deform_conv deform_sampling dropout focal_loss linear_focal_loss '
        'mmcv_operators position regions residual roi_align rows window_attention windows'
    ),
    'utils': 'answers boxes coco_boxes coco_file errors files mp4 progress prompts seeded text video',
    'visualization': 'canvas cross_attention curves detections predictions retrieval samples video',
}
OLD_NAMES = {
    'datasets.base': ('ImageTextDataset', 'KNOWN_CLASSES', 'load_class_names', 'ClassNames'),
    'datasets.transforms.loading': ('LoadImage', 'decode_image', 'is_cut_off'),
    'engine.errors': ('UsageError', 'one_sentence_errors'),
    'engine.launch': ('load_config', 'build_runner'),
    'engine.smoke': ('run_smoke', 'register_smoke_data', 'GENERATORS', 'NUM_SAMPLES'),
    'models.algorithms': ('UniCL', 'METER', 'RetrievalReranker', 'ZeroShotDetector', 'ImageTextDataPreprocessor'),
    'models.heads': ('DyHeadBlock', 'FusionVQAHead'),
    'models.multimodal': ('CoAttentionLayer', 'CoAttentionStacks'),
    'models.multimodal.co_attention': (
        'CoAttentionLayer',
        'CrossAttention',
        'CrossWeights',
        'PostNorm',
        'SelfAttention',
    ),
    'models.multimodal.decoding': ('DecodingRules', 'Decoded', 'greedy_search', 'beam_search'),
    'models.multimodal.fusion': ('Fused', 'CoAttentionFusion', 'init_bert_weights'),
    'models.text': ('CLIPTokenizer', 'MaskedCLIPTokenizer', 'RobertaTextTokenizer', 'TextTokenizer', 'TokenBatch'),
    'models.text.clip_tokens': ('CLIPTokenEncoder', 'MaskedCLIPTokenizer'),
    'models.text.roberta': ('RobertaTextEncoder', 'RobertaTextTokenizer'),
    'ops.position': ('relative_position_bias', 'relative_position_index'),
    'utils.errors': ('DataError',),
    'visualization.cross_attention': ('find_word',),
}


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_every_module_of_the_release_is_found():
    for folder, names in OF_0_1_0.items():
        for name in names.split():
            import_module('.'.join(filter(None, ('florence_mm', folder, name))))
    for module, names in OLD_NAMES.items():
        for name in names:
            assert hasattr(import_module(f'florence_mm.{module}'), name), f'{module}.{name}'


@pytest.mark.parametrize('old', [old for old, new in moved.MODULES.items() if isinstance(new, str)])
def test_an_old_name_means_the_new_module(old, monkeypatch):
    monkeypatch.delitem(sys.modules, f'florence_mm.{old}', raising=False)
    new = f'florence_mm.{moved.MODULES[old]}'
    with pytest.warns(FutureWarning, match=f'florence_mm.{old} is now {new}; the old name goes with the next release'):
        assert import_module(f'florence_mm.{old}') is sys.modules[new]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        import_module(f'florence_mm.{old}')  # told once


def test_a_name_that_is_nowhere():
    with pytest.raises(AttributeError, match='florence_mm.models.multimodal.fusion.*now florence_mm.models.multimodal'):
        import_module('florence_mm.models.multimodal.fusion').nothing  # noqa: B018
    with pytest.raises(AttributeError, match="'florence_mm.models.text' has no attribute 'nothing'"):
        import_module('florence_mm.models.text').nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import_module('florence_mm.engine.nothing')


def test_a_folder_left_behind_hides_no_alias(tmp_path):
    # what git leaves of a moved folder: one with nothing but compiled files
    (tmp_path / 'left/__pycache__').mkdir(parents=True)
    code = f"""
import florence_mm.utils
from florence_mm import moved
florence_mm.utils.__path__.append({str(tmp_path)!r})
moved.MODULES['utils.left'] = 'errors'
import florence_mm.utils.left as old
print(old.__name__)
"""
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[-1] == 'florence_mm.errors'
