"""Generated data of images and videos, one function per kind of data set; :mod:`florence_mm.smoke.run` calls them."""

import json
from pathlib import Path

import cv2
import numpy as np

from florence_mm.errors import UsageError
from florence_mm.formats.shards import write_set, write_shard
from florence_mm.language.class_names import KNOWN_CLASSES, load_class_names

from .stand_ins import generate, register_smoke_data

_HEIGHT, _WIDTH = 80, 96
#: made-up names of what is to be seen
CLASS_NAMES = ['red square', 'green square', 'blue square', 'white square']


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (_HEIGHT, _WIDTH)) -> list[str]:
    """Write images of noise with a bright square; returns their file names.

    Args:
        folder (Path): Folder of the images; it is created.
        count (int): Number of images.
        size (tuple[int, int]): Height and width.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = []
    for index in range(count):
        image = rng.integers(0, 128, (*size, 3), dtype=np.uint8)
        box_height, box_width = size[0] // 2, size[1] // 2
        image[:box_height, :box_width, index % 3] = 255
        names.append(f'{index}.png')
        if not cv2.imwrite(str(folder / names[-1]), image):
            raise UsageError(f'--smoke cannot write its generated images to {folder}; free some space there')
    return names


def _class_names(classes: object) -> list[str]:
    """The config's first class names if they are known without its files, else invented ones."""
    if isinstance(classes, str) and classes not in KNOWN_CLASSES:
        return CLASS_NAMES
    return (load_class_names(classes) or CLASS_NAMES)[:10]


@register_smoke_data('ImageTextManifest')
def image_text_manifest(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a jsonl manifest of images or videos: for training classes and captions in turn, for tests both.

    A training pipeline that makes no text of known classes is a classifier's, whose images all have a class.
    """
    given = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    names = _class_names(given)
    columns = dict(dataset.get('columns') or {})
    rows = []
    steps = [str(step['type']).rsplit('.', 1)[-1] for step in dataset.get('pipeline', ()) if 'type' in step]
    only_classes = bool(given) and 'RandomPrompt' not in steps
    write = write_videos if 'VideoInit' in steps else write_pictures
    for index, file in enumerate(write(folder / 'images', count)):
        name = names[index % len(names)]
        captions = [f'a picture of one {name}', f'number {index}: a {name}']
        if dataset.get('test_mode'):
            # a column that the data set names must be there
            texts = {'text': captions[0]} if 'text' in columns else {'texts': captions}
            row = {'image': file, 'class': name, **texts}
        else:
            row = {'image': file, **({'class': name} if index % 2 or only_classes else {'text': captions[0]})}
        rows.append({columns.get(key, key): value for key, value in row.items()})
    manifest = folder / 'manifest.jsonl'
    manifest.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    generated = {**dataset, 'ann_file': str(manifest), 'data_root': '', 'data_prefix': str(folder / 'images')}
    if given:
        generated.update(classes=names)
        generated['metainfo'] = {k: v for k, v in (dataset.get('metainfo') or {}).items() if k != 'classes'}
    return generated


@register_smoke_data('TextManifest')
def text_manifest(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a jsonl manifest of texts."""
    column = (dataset.get('columns') or {}).get('text', 'text')
    manifest = folder / 'texts.jsonl'
    manifest.write_text(''.join(json.dumps({column: f'text {index} of {count}'}) + '\n' for index in range(count)))
    return {**dataset, 'ann_file': str(manifest), 'data_root': ''}


@register_smoke_data('ImageTextShards')
def image_text_shards(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a set of two shards, in place of one that may be in a store."""
    names = _class_names(dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes'))
    samples = [
        (f'{index:05}', {'png': (folder / 'images' / file).read_bytes(), 'json': _text(names[index % len(names)])})
        for index, file in enumerate(write_pictures(folder / 'images', count))
    ]
    middle = (count + 1) // 2
    for number, part in enumerate((samples[:middle], samples[middle:])):
        if part:
            write_shard(folder / 'shards' / f'{number:05}.tar', part)
    write_set(folder / 'shards')
    return {**dataset, 'data_root': str(folder / 'shards'), 'cache': None, 'block': None}


def _text(name: str) -> bytes:
    return json.dumps({'text': f'a picture of one {name}', 'augmented': False}).encode()


@register_smoke_data('ImageFolderText')
def image_folder_text(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a folder for each of the first class names, with one image."""
    given = dataset.get('class_names')
    if isinstance(given, dict):
        names = {key: given[key] for key in list(given)[:count]}
        folders = list(names)
    else:
        chosen = _class_names(given)[:count]
        folders = [f'{index:02d}' for index in range(len(chosen))]
        names = chosen
    for name in folders:
        write_pictures(folder / 'images' / name, 1)
    return {**dataset, 'data_root': str(folder / 'images'), 'data_prefix': '', 'class_names': names}


@register_smoke_data('WeightedMixture')
def weighted_mixture(dataset: dict, folder: Path, count: int) -> dict:
    """Generate the data of all members of a mixture, with equal weights and the shortest epoch."""
    entries = [
        {**entry, 'dataset': generate(entry['dataset'], folder / str(index), f'datasets.{index}.dataset')}
        for index, entry in enumerate(dataset['datasets'])
    ]
    # weights of pretraining mixtures differ by orders of magnitude, which four samples each cannot represent
    return {**dataset, 'datasets': [{**entry, 'weight': 1} for entry in entries], 'epoch_size': None}


@register_smoke_data('CustomDataset', 'ImageNet', 'ImageNet21k', 'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST', 'CUB',
                     'Caltech101', 'DTD', 'FGVCAircraft', 'Flowers102', 'Food101', 'OxfordIIITPet', 'Places205',
                     'StanfordCars', 'SUN397')  # fmt: skip
def classification(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a folder per class for ``CustomDataset``, in place of mmpretrain's single-label data sets."""
    small = dataset['type'].rsplit('.', 1)[-1] in ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
    for index in range(count):
        write_pictures(folder / 'images' / f'{index:02d}', 1, (32, 32) if small else (_HEIGHT, _WIDTH))
    pipeline = list(dataset['pipeline'])
    if small:
        # these data sets store arrays, so their pipelines load no files
        color = 'grayscale' if 'MNIST' in dataset['type'] else 'color'
        pipeline.insert(0, {'type': 'mmcv.LoadImageFromFile', 'color_type': color})
    return {'type': 'mmpretrain.CustomDataset', 'data_root': str(folder / 'images'), 'pipeline': pipeline,
            **({'_scope_': dataset['_scope_']} if '_scope_' in dataset else {})}  # fmt: skip


@register_smoke_data('VideoDataset', 'VideoList')
def videos(dataset: dict, folder: Path, count: int) -> dict:
    """Generate labelled videos of noise, for mmaction2 or us, in two classes, which all models with classes have."""
    delimiter = dataset.get('delimiter', ' ')
    lines = [f'{file}{delimiter}{index % 2}\n' for index, file in enumerate(write_videos(folder, count))]
    (folder / 'videos.txt').write_text(''.join(lines))
    if isinstance(dataset.get('classes'), str):
        # a file of names that need not exist
        dataset = {key: value for key, value in dataset.items() if key != 'classes'}
    return {**dataset, 'ann_file': str(folder / 'videos.txt'), 'data_root': '', 'data_prefix': {'video': str(folder)}}


def write_videos(folder: Path, count: int) -> list[str]:
    """Write mp4 files by :func:`write_video`; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f'{index}.mp4' for index in range(count)]
    for index, name in enumerate(names):
        write_video(folder / name, seed=index)
    return names


def write_video(path: Path, seed: int, frames: int = 16) -> None:
    """Write an mp4 of noise with a bright square that moves to the right."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 8, (_WIDTH, _HEIGHT))
    if not writer.isOpened():
        raise UsageError(f'--smoke cannot write its generated videos to {path.parent}; free some space there')
    rng = np.random.default_rng(seed)
    for number in range(frames):
        image = rng.integers(0, 128, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
        left = number * (_WIDTH // 2) // frames
        image[: _HEIGHT // 2, left : left + _WIDTH // 2] = 255
        writer.write(image)
    writer.release()
