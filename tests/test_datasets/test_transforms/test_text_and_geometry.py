import numpy as np
import pytest
from mmengine.registry import DefaultScope

from florence_mm.datasets.transforms import PackImageText, RandomAffineImage, RandomPrompt
from florence_mm.datasets.transforms.geometry import affine_matrix
from florence_mm.language.labels import text_label
from florence_mm.language.prompts import get_templates
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.seeded import seed_everything_for_sample


def test_prompt_keeps_the_label():
    np.random.seed(0)
    transform = RandomPrompt(templates=['a photo of a {}.', 'the {}'])
    seen = set()
    for _ in range(50):
        results = transform({'text': 'Great Dane, tall+old', 'is_class': True, 'augmented': False})
        seen.add(results['text'])
        assert results['augmented'] is True
        assert results['label'] == 'Great Dane, tall+old'
    assert seen == {'a photo of a Great Dane tall old.', 'the Great Dane tall old'}


def test_prompt_is_for_classes_and_short_captions():
    transform = RandomPrompt(templates=['the {}'], max_words=2)

    def text(text, **kwargs):
        return transform({'text': text, **kwargs})['text']

    assert text('red fox') == 'the red fox'
    assert text('a red fox') == 'a red fox'
    assert text('a very long class name', is_class=True) == 'the a very long class name'
    assert text('photo of fox', augmented=True) == 'photo of fox'
    untouched = transform({'text': 'a red fox', 'augmented': False})
    assert 'label' not in untouched
    assert untouched['augmented'] is False
    assert RandomPrompt(max_words=0, templates=['the {}'])({'text': 'fox'})['text'] == 'fox'


def test_caption_gives_up_its_article_and_stop():
    transform = RandomPrompt(templates=['a photo of a {}.'])
    for text, expected in (
        ('A dog.', 'dog'),
        ('the  old dog', 'old dog'),
        ('an ape', 'ape'),
        ('The', 'The'),
        ('thearch', 'thearch'),
        ('a', 'a'),
    ):
        results = transform({'text': text})
        assert results['text'] == f'a photo of a {expected}.'
        assert results['label'] == text
    # a class name is taken as it is
    assert transform({'text': 'The Wash', 'is_class': True})['text'] == 'a photo of a The Wash.'


def test_prompt_keeps_a_label_of_the_manifest():
    results = RandomPrompt(templates=['the {}'])({'text': 'fox', 'label': 'vulpes'})
    assert (results['text'], results['label']) == ('the fox', 'vulpes')


def test_prompt_probability_and_spread():
    np.random.seed(1)
    transform = RandomPrompt(prob=0.25)
    texts = [transform({'text': 'fox', 'is_class': True}) for _ in range(4000)]
    assert abs(sum('augmented' in r for r in texts) / 4000 - 0.25) < 0.03
    used = {r['text'] for r in texts if 'augmented' in r}
    assert len(used) == len(get_templates('imagenet'))
    # prob=0 is the paper's second stage: no template at all
    assert RandomPrompt(prob=0.0)({'text': 'fox', 'is_class': True})['text'] == 'fox'


def test_prompt_draws_alike_for_every_sample():
    # a long caption must not shift the random stream of the transforms that follow
    after = []
    for text in ('fox', 'a long caption of many words'):
        np.random.seed(5)
        RandomPrompt()({'text': text})
        after.append(np.random.rand())
    assert after[0] == after[1]


def test_prompt_arguments():
    with pytest.raises(ValueError, match='max_words=-1'):
        RandomPrompt(max_words=-1)
    with pytest.raises(ValueError, match='prob=2'):
        RandomPrompt(prob=2)


def test_pack():
    img = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    data = PackImageText()(
        {
            'img': img,
            'text': 'a photo of a dog.',
            'label': 'Dog',
            'augmented': True,
            'gt_label': 3,
            'texts': ['a', 'b'],
            'img_path': 'x.png',
            'unknown': 1,
        }
    )
    assert data['inputs'].shape == (3, 2, 4)
    assert data['inputs'][1, 0].tolist() == [1, 4, 7, 10]
    sample = data['data_samples']
    assert sample.label_key == text_label('dog')
    assert (sample.text, sample.augmented, sample.texts) == ('a photo of a dog.', True, ['a', 'b'])
    assert sample.gt_label.tolist() == [3]
    assert sample.metainfo == {'img_path': 'x.png'}
    for bad in (img[..., :1], img.astype(np.float32), img[0]):
        with pytest.raises(ValueError, match=r'expected \(H, W, 3\) uint8'):
            PackImageText()({'img': bad, 'text': 'a'})


def test_affine_matrix_by_hand():
    # a quarter turn clockwise about the centre (2, 1) of a 3x5 image: right of the centre goes below it
    matrix = affine_matrix((3, 5), rotate=90)
    np.testing.assert_allclose(matrix @ [2, 1, 1], [2, 1], atol=1e-12)
    np.testing.assert_allclose(matrix @ [3, 1, 1], [2, 2], atol=1e-12)
    np.testing.assert_allclose(affine_matrix((3, 5), scale=2) @ [4, 2, 1], [6, 3], atol=1e-12)
    np.testing.assert_allclose(affine_matrix((3, 5), translate=(1, -2)) @ [0, 0, 1], [1, -2], atol=1e-12)
    # 45 degrees: one down is one to the right
    np.testing.assert_allclose(affine_matrix((3, 5), shear=45) @ [2, 2, 1], [3, 2], atol=1e-12)


def test_affine_amounts_stay_in_their_ranges(monkeypatch):
    seen = []

    def record(shape, **kwargs):
        seen.append(kwargs)
        return affine_matrix(shape, **kwargs)

    monkeypatch.setattr('florence_mm.datasets.transforms.geometry.affine_matrix', record)
    np.random.seed(0)
    transform = RandomAffineImage(max_rotate=20, max_translate=0.1, scale=(0.5, 2), max_shear=5)
    for _ in range(400):
        transform({'img': np.zeros((10, 40, 3), dtype=np.uint8)})
    for values, bound in (
        ([k['rotate'] for k in seen], 20),
        ([k['translate'][0] for k in seen], 4),
        ([k['translate'][1] for k in seen], 1),
        ([np.log2(k['scale']) for k in seen], 1),
        ([k['shear'] for k in seen], 5),
    ):
        assert bound * 0.98 < max(values) <= bound
        assert -bound <= min(values) < -bound * 0.98
        assert abs(np.mean(values)) < bound * 0.1


def test_affine_image():
    img = np.full((9, 9, 3), 7, dtype=np.uint8)
    img[4, 4] = 200
    still = RandomAffineImage(max_rotate=180, max_translate=0, scale=(1, 1), fill=(1, 2, 3), interpolation='nearest')
    np.random.seed(0)
    out = still({'img': img})['img']
    assert out[4, 4].tolist() == [200] * 3
    assert out[0, 0].tolist() == [1, 2, 3]  # a corner turned in from outside
    assert still({'img': img})['img'].shape == img.shape
    none = RandomAffineImage(prob=0.0)({'img': img})['img']
    np.testing.assert_array_equal(none, img)
    for kwargs, message in (
        ({'max_rotate': -1}, 'must not be negative'),
        ({'scale': (1.1, 0.9)}, 'the smaller first'),
        ({'prob': 1.5}, 'must be a probability'),
        ({'interpolation': 'cubic'}, 'must be one of nearest, bilinear, bicubic, lanczos'),
    ):
        with pytest.raises(ValueError, match=message):
            RandomAffineImage(**kwargs)


# how configs name the transforms of other packages, whatever the default scope is (docs/data.md)
FOREIGN = [
    {'type': 'mmpretrain.RandomResizedCrop', 'scale': 32, 'backend': 'pillow', 'interpolation': 'bicubic'},
    {'type': 'mmpretrain.ResizeEdge', 'scale': 32, 'edge': 'short', 'backend': 'pillow', 'interpolation': 'bicubic'},
    {'type': 'mmcv.CenterCrop', 'crop_size': 24},
    {'type': 'mmcv.RandomFlip', 'prob': 0.5},
    {
        'type': 'RandAugment',
        '_scope_': 'mmpretrain',
        'policies': 'timm_increasing',
        'num_policies': 2,
        'total_level': 10,
        'magnitude_level': 9,
    },
]


@pytest.fixture(params=['florence_mm', 'mmdet', 'mmengine'])
def default_scope(request):
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


@pytest.mark.parametrize('cfg', FOREIGN, ids=lambda cfg: cfg['type'])
def test_transforms_of_other_packages_are_seeded(cfg, default_scope):
    transform = TRANSFORMS.build(dict(cfg))
    picture = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)

    def run(seed):
        seed_everything_for_sample(seed)
        return transform({'img': picture.copy(), 'img_shape': (40, 56)})['img']

    outputs = [run(seed) for seed in (1, 2, 3, 4, 1)]
    assert outputs[0].dtype == np.uint8
    np.testing.assert_array_equal(outputs[0], outputs[4])
    if 'Random' in cfg['type'] or 'RandAugment' in cfg['type']:
        assert any(o.shape != outputs[0].shape or not np.array_equal(o, outputs[0]) for o in outputs[1:4])


def test_pillow_backend_is_that_of_the_public_evaluation():
    # Resize(256 / 224, bicubic) of torchvision on PIL images; cv2's bicubic does not smooth before it shrinks
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    cfg = FOREIGN[1]
    ours = TRANSFORMS.build(dict(cfg))({'img': picture})['img']
    theirs = np.asarray(Image.fromarray(picture).resize((38, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(ours, theirs)
    other = TRANSFORMS.build({**cfg, 'backend': 'cv2'})({'img': picture})['img']
    assert np.abs(other.astype(int) - theirs).max() > 50
