import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import ks_2samp

from florence_mm.corpora.clips import (
    AXES,
    MOTIONS,
    ClipOptions,
    caption,
    draw_clip,
    draw_states,
    make_clip,
    write_clips,
)
from florence_mm.corpora.digits import digit_indices, load_digits_split
from florence_mm.formats.video import open_video

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_clips.py'
OPTIONS = ClipOptions(train=90, test=18, frames=6, seed=3)
TOTAL = 90 + 18 + 5


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    out = tmp_path_factory.mktemp('clips')
    assert write_clips(out, OPTIONS) == (TOTAL, TOTAL)
    return out


def rows(folder, split):
    return [json.loads(line) for line in (folder / f'{split}.jsonl').read_text().splitlines()]


def test_captions():
    assert caption('seven', 'left') == 'a seven moving to the left'
    assert caption('eight', 'counterclockwise') == 'an eight turning counterclockwise'
    assert len({caption('one', motion) for motion in MOTIONS}) == 9


def test_training_texts_also_say_the_digit_and_the_motion_alone(clips):
    [row] = [row for row in rows(clips, 'train') if (row['digit'], row['motion']) == ('eight', 'up')]
    assert row['texts'] == ['an eight moving up', 'an eight', 'a digit moving up']
    assert 'text' not in row


def test_lists_and_files(clips):
    motions = (clips / 'motions.txt').read_text().split()
    assert motions == list(MOTIONS)
    labels = {}
    for split in ('train', 'test'):
        labels.update(zip(digit_indices(split).tolist(), load_digits_split(split)[1].tolist(), strict=True))
    names = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    for split, number in (('train', 90), ('test', 18)):
        found = rows(clips, split)
        lines = [line.split() for line in (clips / f'{split}.txt').read_text().splitlines()]
        assert len(found) == len(lines) == number
        for row, (path, label) in zip(found, lines, strict=True):
            assert row['video'] == path and row['motion'] == motions[int(label)]
            text = caption(row['digit'], row['motion'])
            assert row['text'] == text if split == 'test' else row['texts'][0] == text
            # the digit is that of the image drawn, and the image of the split
            assert row['digit'] == names[labels[row['source']]] and row['source'] in digit_indices(split)
    # each digit with each motion once
    assert set(Counter((row['digit'], row['motion']) for row in rows(clips, 'train')).values()) == {1}


def test_files_hold_the_frames(clips):
    for index in (0, 35, 89):
        video = open_video((clips / f'train/{index:06d}.mp4').read_bytes(), 'x')
        assert len(video) == 6 and video.fps == 8
        frames, clip = make_clip(OPTIONS, 'train', index)
        assert rows(clips, 'train')[index]['source'] == clip.digit
        difference = np.abs(video.read(range(6)).astype(int) - frames)
        # brightness comes back, colour at half the resolution
        assert difference.mean() < 4
        small = [
            np.stack([cv2.resize(f, (16, 16), interpolation=cv2.INTER_AREA) for f in v]).astype(int)
            for v in (frames, video.read(range(6)))
        ]
        assert np.abs(small[0] - small[1]).max() <= 9


def ink(clip):
    """Mass, centre of mass (column, row) and direction in degrees of what differs from black."""
    mass = clip.mean(3).astype(float)
    rows_, columns = np.mgrid[: clip.shape[1], : clip.shape[2]]
    total = mass.sum((1, 2))
    column, row = (mass * columns).sum((1, 2)) / total, (mass * rows_).sum((1, 2)) / total
    dx, dy = columns - column[:, None, None], rows_ - row[:, None, None]
    xy, xx, yy = (mass * dx * dy).sum((1, 2)), (mass * dx**2).sum((1, 2)), (mass * dy**2).sum((1, 2))
    # of the main axis against the columns, counterclockwise as it is seen (rows go down)
    return total, column, row, np.rad2deg(np.unwrap(-np.arctan2(2 * xy, xx - yy)) / 2)


@pytest.mark.parametrize('motion', MOTIONS)
def test_pixels_move_as_the_caption_says(motion, monkeypatch):
    monkeypatch.setattr('florence_mm.corpora.clips.make_background', lambda rng, size: np.zeros((size, size, 3)))
    bar = np.zeros((8, 8), dtype=np.float32)
    bar[1:7, 3:5] = 1
    for seed in range(4):
        mass, column, row, angle = ink(draw_clip(np.random.default_rng(seed), bar, motion, 64, 16))
        moves = np.array([np.ptp(column) > 5, np.ptp(row) > 5, mass.max() > 1.5 * mass.min(), np.ptp(angle) > 20])
        axis, direction = MOTIONS[motion]
        assert moves.tolist() == [bool(direction) and i == axis for i in range(4)]
        if direction:
            track = (column, row, mass, angle)[axis]
            assert np.all(np.diff(track) * direction > 0)
    if motion == 'still':
        clip = draw_clip(np.random.default_rng(0), bar, motion, 64, 16)
        assert (clip == clip[:1]).all()
    # the words mean what they say
    assert MOTIONS['left'] == (0, -1) and MOTIONS['up'] == (1, -1) and MOTIONS['counterclockwise'] == (3, 1)


def test_digits_are_not_cut(monkeypatch):
    rng = np.random.default_rng(0)
    middle, half = AXES[:, 0], AXES[:, 1]
    for motion in MOTIONS:
        states = np.concatenate([draw_states(rng, motion, 3) for _ in range(40)])
        assert (np.abs(states - middle) <= half + 1e-9).all()
    # a large one in the corner
    far = (middle + half * [1, 1, 1, 0])[None]
    monkeypatch.setattr('florence_mm.corpora.clips.draw_states', lambda *_: far)
    monkeypatch.setattr('florence_mm.corpora.clips.make_background', lambda rng, size: np.zeros((size, size, 3)))
    for image in load_digits_split('train')[0][::40]:
        frame = draw_clip(rng, image, 'still', 64, 1)[0]
        assert frame.max() > 80 and frame[-1].max() < 128 and frame[:, -1].max() < 128


def test_a_random_frame_looks_the_same_under_every_motion():
    samples = {}
    for motion in MOTIONS:
        rng = np.random.default_rng(list(motion.encode()))
        samples[motion] = np.array([draw_states(rng, motion, 16)[rng.integers(16)] for _ in range(2000)])
    for motion in MOTIONS:
        for axis in range(4):
            assert ks_2samp(samples[motion][:, axis], samples['still'][:, axis]).pvalue > 1e-3
        # and the four are independent of one another
        assert np.abs(np.corrcoef(samples[motion].T) - np.eye(4)).max() < 0.08
    # the test would see a coordinate that stands in the middle of its path instead
    middle = np.array([draw_states(rng, 'right', 16)[7] for _ in range(2000)])
    assert ks_2samp(middle[:, 0], samples['still'][:, 0]).pvalue < 1e-3


def density(value, moment, half, shortest, longest):
    """Of a path's point at ``moment`` (from -1/2 to 1/2), averaged over the path's middle and length."""
    lengths = np.linspace(shortest, longest, 21)
    return np.mean([(np.abs(value - moment * d) <= half - d / 2) / (2 * half - d) for d in lengths], 0)


def test_one_frame_allows_less_than_a_half():
    # The best rule picks the motion under which the frame is most likely. States that stand still are the common
    # reference: the rule's accuracy is the mean over them of the largest likelihood ratio, divided by nine.
    moments = np.linspace(-0.5, 0.5, 16)
    rng = np.random.default_rng(0)
    still = np.array([draw_states(rng, 'still', 16)[0] for _ in range(4000)]) - AXES[:, 0]
    best = []
    for moment in moments[:8]:
        ratio = np.ones(len(still))
        for axis, (_, half, shortest, longest) in enumerate(AXES):
            value = still[:, axis]
            anywhere = np.mean([density(value, m, half, shortest, longest) for m in moments], 0)
            for played in (moment, -moment):
                ratio = np.maximum(ratio, density(value, played, half, shortest, longest) / anywhere)
        best.append(ratio.mean() / 9)
    # the first frame says most, the middle one least
    assert best[0] == max(best) and best[-1] == min(best)
    assert 0.3 < best[0] < 0.4
    assert best[-1] < 0.2


def test_clips_depend_on_seed_split_and_index_alone():
    first, clip = make_clip(OPTIONS, 'train', 7)
    more = ClipOptions(train=8, test=1, frames=6, seed=3)
    assert np.array_equal(first, make_clip(more, 'train', 7)[0]) and clip == make_clip(more, 'train', 7)[1]
    for other in (
        make_clip(OPTIONS, 'train', 97),
        make_clip(OPTIONS, 'test', 7),
        make_clip(ClipOptions(frames=6, seed=4), 'train', 7),
    ):
        assert other[1].label == 7 and not np.array_equal(first, other[0])


def test_second_run_mends_what_is_damaged(clips):
    assert write_clips(clips, OPTIONS) == (0, TOTAL)
    video = clips / 'train/000005.mp4'
    good = video.read_bytes()
    video.write_bytes(good[:-9])
    (clips / 'test.jsonl').unlink()
    (clips / 'mine.txt').write_text('x')
    assert write_clips(clips, OPTIONS) == (2, TOTAL)
    assert video.read_bytes() == good
    assert (clips / 'mine.txt').exists() and not list(clips.rglob('*.tmp'))


def test_other_options_replace_the_clips(tmp_path):
    write_clips(tmp_path, ClipOptions(train=4, test=2, frames=3))
    # the clips are the first of before; both lists of training clips are others
    assert write_clips(tmp_path, ClipOptions(train=3, test=2, frames=3)) == (2, 10)
    assert len(list((tmp_path / 'train').iterdir())) == 3


def test_bad_options_have_their_sentence():
    for options, message in (
        ({'train': 0}, 'train=0 of the clips must be at least 1'),
        ({'frames': 1}, 'frames=1 of the clips must be at least 2'),
        ({'size': 65}, 'size=65 of the clips must be even'),
    ):
        with pytest.raises(ValueError, match=message):
            ClipOptions(**options)


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_command(tmp_path, monkeypatch, capsys):
    arguments = ('--out', tmp_path, '--train', 20, '--test', 9, '--size', 32, '--frames', 4)
    run_tool(monkeypatch, *arguments)
    said = capsys.readouterr().out
    assert 'clips of 4 frames of 32x32 pixels, 20 in train/, 9 in test/; wrote 34 of 34 files' in said
    # two motions of two clips each as strips of four frames; one motion in the test clips
    sheet = cv2.imread(str(tmp_path / 'contact_sheet_train.png'))
    assert sheet.shape == (2 * (120 + 12) + 12, 2 * (4 * 100 + 12) + 12, 3)
    assert sheet.min() < 100
    run_tool(monkeypatch, *arguments)
    assert 'all 34 files were there already' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, '--out', tmp_path, '--size', 33)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith('error: size=33 of the clips must be even')
