import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader, Dataset

from florence_mm.config.pick import find_step
from florence_mm.corpora.clips import MOTIONS, ClipOptions, make_clip, write_clips
from florence_mm.datasets import ImageTextManifest
from florence_mm.errors import DataError
from florence_mm.formats.video import BACKENDS, encode_mp4
from florence_mm.registry import TRANSFORMS

CONFIG = Path(__file__).parents[3] / 'configs/_base_/datasets/clips.py'
OPTIONS = ClipOptions(train=18, test=20)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    out = tmp_path_factory.mktemp('clips')
    write_clips(out, OPTIONS)
    return out


def config(folder):
    """The data sets' config with the clips in ``folder``."""
    cfg = Config.fromfile(CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        name = Path(loader.dataset.ann_file).name
        loader.dataset.update(ann_file=str(folder / name), data_prefix=dict(video=str(folder)))
    return cfg


def numbered(folder, count):
    """A video in which frame ``i`` has the grey ``8 i``."""
    path = folder / f'{count}.mp4'
    grey = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * 8
    path.write_bytes(encode_mp4(np.broadcast_to(grey, (count, 32, 64, 3))))
    return str(path)


def pipeline(backend, out_of_bound_opt='loop', clip_len=8, num_clips=1, **init):
    sample = dict(type='mmaction.SampleFrames', clip_len=clip_len, num_clips=num_clips, test_mode=True)
    return Compose(
        [
            TRANSFORMS.build(dict(type='VideoInit', backend=backend, **init)),
            dict(sample, out_of_bound_opt=out_of_bound_opt),
            TRANSFORMS.build(dict(type='VideoDecode')),
        ]
    )


def numbers(images):
    return [round(image.mean() / 8) for image in images]


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
@pytest.mark.parametrize('backend', BACKENDS)
def test_config_gives_clips_to_recognizers(clips, backend, scope):
    cfg = config(clips)
    with DefaultScope.overwrite_default_scope(scope):
        for split, loader in (('train', cfg.train_dataloader), ('test', cfg.val_dataloader)):
            find_step(loader.dataset.pipeline, 'VideoInit').backend = backend
            dataset = DATASETS.build(loader.dataset)
            assert len(dataset) == getattr(OPTIONS, split)
            for index in (3, 17):
                sample = dataset[index]
                frames, clip = make_clip(OPTIONS, split, index)
                assert sample['inputs'].shape == (1, 3, 8, 64, 64) and sample['inputs'].dtype == torch.uint8
                # every second frame, RGB; the colour is stored at half the resolution
                difference = sample['inputs'][0].permute(1, 2, 3, 0).numpy().astype(int) - frames[::2]
                assert np.abs(difference).mean() < 4
                assert sample['data_samples'].gt_label.item() == list(MOTIONS).index(clip.motion)
                assert sample['data_samples'].img_shape == (64, 64)


@pytest.mark.parametrize('backend', BACKENDS)
def test_short_videos_repeat_frames(tmp_path, backend):
    path = numbered(tmp_path, 3)
    results = pipeline(backend)(dict(filename=path))
    assert numbers(results['imgs']) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (results['total_frames'], results['img_shape'], results['original_shape']) == (3, (32, 64), (32, 64))
    assert results['avg_fps'] == 8 and results['modality'] == 'RGB' and 'video_reader' not in results
    # a repeated frame is a copy: changing one changes no other
    results['imgs'][0][:] = 80
    assert numbers(results['imgs']) == [10, 1, 2, 0, 1, 2, 0, 1]
    held = pipeline(backend, 'repeat_last')(dict(filename=path))
    assert numbers(held['imgs']) == [0, 1, 2, 2, 2, 2, 2, 2]
    one = pipeline(backend)(dict(filename=numbered(tmp_path, 1)))
    assert numbers(one['imgs']) == [0] * 8
    with pytest.raises(DataError, match=r'the video .*/3.mp4 has 3 frames, fewer than min_frames=8; remove it'):
        pipeline(backend, min_frames=8)(dict(filename=path))


@pytest.mark.parametrize('backend', BACKENDS)
def test_several_clips_of_a_long_video(tmp_path, backend):
    results = pipeline(backend, clip_len=4, num_clips=3)(dict(filename=numbered(tmp_path, 30)))
    assert numbers(results['imgs']) == [0, 1, 2, 3, 13, 14, 15, 16, 26, 27, 28, 29]


@pytest.mark.parametrize('backend', BACKENDS)
def test_bad_files_are_named(tmp_path, backend):
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'text.mp4').write_text('no video')
    whole = Path(numbered(tmp_path, 9)).read_bytes()
    (tmp_path / 'half.mp4').write_bytes(whole[: len(whole) // 2])
    run = pipeline(backend)
    for name, message in (
        ('empty.mp4', 'is an empty file; replace it or remove it'),
        ('text.mp4', 'cannot be read .*; replace it or remove it'),
        ('half.mp4', '(is cut off|cannot be read).*; replace it or remove it'),
        ('missing.mp4', r'cannot be read \(No such file or directory\); restore it or remove it'),
    ):
        with pytest.raises(DataError, match=f'^list.txt, line 4: the video {tmp_path}/{name} {message}$'):
            run(dict(filename=str(tmp_path / name), source='list.txt, line 4'))
    # and a run ends with the sentence, in a worker too
    (tmp_path / 'list.txt').write_text('empty.mp4 0\n')
    cfg = config(tmp_path).val_dataloader.dataset
    dataset = DATASETS.build({**cfg, 'ann_file': str(tmp_path / 'list.txt')})
    with pytest.raises(DataError, match='empty.mp4 is an empty file'):
        next(iter(DataLoader(dataset, num_workers=1, collate_fn=pseudo_collate)))


def test_bad_options_have_their_sentence():
    with pytest.raises(ValueError, match="backend='opencv' of VideoInit must be one of pyav; leave"):
        TRANSFORMS.build(dict(type='VideoInit', backend='opencv'))
    with pytest.raises(ValueError, match='min_frames=0 must be a whole number, at least 1'):
        TRANSFORMS.build(dict(type='VideoInit', min_frames=0))


def test_manifest_pairs_clips_with_captions(clips):
    steps = [
        dict(type='VideoInit'),
        dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=4, test_mode=True),
        dict(type='VideoDecode'),
    ]
    manifest = ImageTextManifest(str(clips / 'test.jsonl'), columns=dict(image='video'), pipeline=steps, test_mode=True)
    sample = manifest[15]
    assert sample['text'] == 'a five moving to the right'
    assert sample['extra']['digit'] == 'five' and sample['extra']['motion'] == 'right'
    assert len(sample['imgs']) == 4 and sample['imgs'][0].shape == (64, 64, 3)


class Probe(Dataset):
    """Decodes a clip, and returns the process's memory in MiB and its open files."""

    def __init__(self, dataset, length):
        self.dataset = pickle.dumps(dataset)
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if isinstance(self.dataset, bytes):
            self.dataset = pickle.loads(self.dataset)
        self.dataset[index % len(self.dataset)]
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 2**20, len(list(Path('/proc/self/fd').iterdir()))


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='runs on Linux, where /proc tells the memory')
@pytest.mark.parametrize('backend', BACKENDS)
def test_workers_do_not_leak(clips, backend):
    cfg = config(clips).val_dataloader.dataset
    find_step(cfg.pipeline, 'VideoInit').backend = backend
    loader = DataLoader(Probe(DATASETS.build(cfg), 260), batch_size=20, num_workers=1, collate_fn=list)
    seen = [probe for batch in loader for probe in batch]
    memory, files = zip(*seen, strict=True)
    # the frames of the 200 clips decoded since are 19 MiB, and a decoder takes more
    assert memory[-1] - memory[59] < 8
    assert files[-1] == files[59]
