"""Videos whose answer is known: the mean colour of the frames decides the class."""

import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from florence_mm.apis import VideoInferencer, video_inferencer
from florence_mm.apis.video_inputs import open_file, split_windows
from florence_mm.config.pick import replace_step
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import BACKENDS, encode_mp4, open_video
from florence_mm.models.algorithms import UniCL
from florence_mm.visualization.detections import class_colour

ROOT = Path(__file__).parents[2]
world = runpy.run_path(str(ROOT / 'tests/test_models/coloured_boxes.py'))
COLOURS = {'red': (200, 40, 40), 'green': (40, 200, 40), 'blue': (40, 40, 200)}
SHARPNESS = 6.0


class Cells(nn.Module):
    """A backbone whose map is the mean of cells of 1 x 8 x 8 pixels, of 0 to 1; ``(B, 3, T, H/8, W/8)``."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def init_weights(self):
        """Nothing to draw."""

    def forward(self, x):
        return nn.functional.avg_pool3d(self.scale * x, (1, 8, 8))


def recognizer_config(num_clips=1, opener='florence_mm.VideoInit', decoder='florence_mm.VideoDecode', **dataset):
    head = {'type': 'I3DHead', 'num_classes': 3, 'in_channels': 3, 'dropout_ratio': 0.0, 'average_clips': 'prob'}
    preprocessor = {'type': 'ActionDataPreprocessor', 'mean': [0.0] * 3, 'std': [255.0] * 3, 'format_shape': 'NCTHW'}
    model = {'type': 'Recognizer3D', 'backbone': {'type': Cells}, 'cls_head': head, 'data_preprocessor': preprocessor}
    sample = {'type': 'SampleFrames', 'clip_len': 4, 'num_clips': num_clips, 'test_mode': True}
    ends = [{'type': 'FormatShape', 'input_format': 'NCTHW'}, {'type': 'PackActionInputs'}]
    pipeline = [{'type': opener}, sample, {'type': decoder}, *ends]
    dataset = {'type': 'florence_mm.VideoList', 'ann_file': 'nowhere.txt', 'pipeline': pipeline, **dataset}
    return Config({'default_scope': 'mmaction', 'model': model, 'test_dataloader': {'dataset': dataset}})


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.pth'
    weights = {'cls_head.fc_cls.weight': SHARPNESS * torch.eye(3), 'cls_head.fc_cls.bias': torch.zeros(3)}
    torch.save({'state_dict': {'backbone.scale': torch.ones(()), **weights}}, path)
    return path


@pytest.fixture
def recognize(checkpoint):
    def make(class_names=tuple(COLOURS), batch_size=1, backend='pyav', **kwargs):
        config = recognizer_config(**kwargs)
        return VideoInferencer(config, checkpoint, 'cpu', class_names, batch_size=batch_size, backend=backend)

    return make


def write(path, *colours, fps=4, size=(32, 64)):
    """A video with a second of each colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((*size, 3), COLOURS[colour], np.uint8) for colour in colours for _ in range(fps)]
    path.write_bytes(encode_mp4(frames, fps))
    return path


def expected(path, *clips):
    """Mean probabilities of clips, each the numbers of its frames."""
    reader = open_video(path.read_bytes(), 'x')
    means = torch.stack([torch.tensor(reader.read(list(clip)).mean((0, 1, 2))) / 255 for clip in clips])
    return (SHARPNESS * means).softmax(1).mean(0).tolist()


@pytest.mark.parametrize('backend', BACKENDS)
def test_whole_clip_by_hand(tmp_path, recognize, backend):
    path = write(tmp_path / 'a.mp4', 'red', 'red', 'blue', size=(32, 80))
    (result,) = recognize(backend=backend)(path)
    scores = expected(path, range(4, 8))  # the four frames in the middle
    assert result == {
        'file': str(path),
        'frames': 12,
        'fps': 4.0,
        'labels': ['red', 'green', 'blue'],
        'scores': pytest.approx([scores[0], scores[1], scores[2]], abs=1e-4),
    }
    # two views, from the start and the end
    (result,) = recognize(num_clips=2, backend=backend)(path, top=2)
    scores = expected(path, range(4), range(8, 12))
    assert set(result['labels']) == {'red', 'blue'}
    assert sorted(result['scores']) == pytest.approx(sorted([scores[0], scores[2]]), abs=1e-4)


def test_windows_by_hand(tmp_path, recognize):
    path = write(tmp_path / 'a.mp4', 'red', 'green', 'blue')
    (result,) = recognize()(path, top=1, window=1.0, stride=0.75)
    assert [(w['start'], w['end']) for w in result['windows']] == [(0, 1), (0.75, 1.75), (1.5, 2.5), (2, 3)]
    for found, first, name in zip(result['windows'], (0, 3, 6, 8), ('red', 'green', 'green', 'blue'), strict=True):
        scores = expected(path, range(first, first + 4))
        assert found['labels'] == [name] if first != 6 else found['labels'][0] in ('green', 'blue')
        assert found['scores'] == pytest.approx([max(scores)], abs=1e-4)
    assert result == recognize(batch_size=3)(path, top=1, window=1.0, stride=0.75)[0]
    # longer than the video
    (result,) = recognize()(path, window=9.0)
    (only,) = result['windows']
    assert (only['start'], only['end'], only['scores']) == (0.0, 3.0, result['scores'])


def test_windows_leave_no_frame_out(tmp_path):
    reader = open_video(write(tmp_path / 'a.mp4', 'red', 'green', fps=5).read_bytes(), 'x')
    for window, stride in ((0.6, None), (0.4, 0.4), (0.05, 0.05), (1.9, 1.9), (2.0, 1.0)):
        spans = list(split_windows(reader, window, stride))
        assert {i for span in spans for i in range(span.first, span.first + len(span))} == set(range(10))
        assert {len(span) for span in spans} == {max(1, round(5 * window))}
        assert len({span.first for span in spans}) == len(spans)
    reader.fps = 0.0
    with pytest.raises(DataError, match='x does not tell its frame rate'):
        list(split_windows(reader, 1.0, None))


@pytest.mark.parametrize('names', [('DecordInit', 'DecordDecode'), ('PyAVInit', 'PyAVDecode')])
def test_pipelines_of_mmaction2(tmp_path, recognize, names):
    path = write(tmp_path / 'a.mp4', 'green')
    ours, theirs = recognize(), recognize(opener=names[0], decoder=names[1])
    assert ours(path) == theirs(path)


def test_a_folder_with_videos_and_one_json(tmp_path, recognize):
    write(tmp_path / 'in/b.mp4', 'red', 'blue')
    write(tmp_path / 'in/a/b.mp4', 'green')
    (tmp_path / 'in/notes.txt').write_text('no video')
    results = recognize()(tmp_path / 'in', top=2, window=1.0, stride=1.0, out_dir=tmp_path / 'out')
    assert [result['video'] for result in results] == ['b.mp4', 'b_2.mp4']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['b.mp4', 'b_2.mp4', 'videos.json']
    written = json.loads((tmp_path / 'out/videos.json').read_text())
    assert written == {'classes': list(COLOURS), 'window': 1.0, 'stride': 1.0, 'videos': results}
    drawn = open_video((tmp_path / 'out/b_2.mp4').read_bytes(), 'x')
    assert (len(drawn), drawn.fps) == (8, 4)
    first, last = drawn.read([0, 7]).astype(int)
    assert first.shape[1] == 512 and first.shape[0] > 256  # eight times as large, the predictions below
    assert np.abs(first[:250] - COLOURS['red']).max() < 8 and np.abs(last[:250] - COLOURS['blue']).max() < 8
    for frame, name in ((first, 'red'), (last, 'blue')):
        bar = class_colour(name, list(COLOURS))
        # the bar of the best class comes first
        row = frame[256 + 30 : 256 + 38, 225:300]
        assert np.abs(row - bar).mean() < 20


def test_originals_are_not_written_over(tmp_path, recognize):
    path = write(tmp_path / 'a.mp4', 'red')
    before = path.read_bytes()
    with pytest.raises(UsageError, match='a.mp4 lies in the output folder.*give another'):
        recognize()(path, out_dir=tmp_path)
    assert path.read_bytes() == before


def test_bad_videos_have_their_sentence(tmp_path, recognize):
    good = write(tmp_path / 'in/good.mp4', 'red')
    empty, missing = tmp_path / 'in/empty.mp4', tmp_path / 'in/missing.mp4'
    empty.write_bytes(b'')
    with pytest.raises(DataError, match='the video .*empty.mp4 is an empty file; replace it'):
        recognize()([good, empty], skip_bad=False)
    results = recognize()([good, empty, missing], out_dir=tmp_path / 'out')
    assert ['error' in result for result in results] == [False, True, True]
    assert 'missing.mp4 cannot be read (No such file or directory)' in results[2]['error']
    assert json.loads((tmp_path / 'out/videos.json').read_text())['videos'] == results
    (tmp_path / 'none').mkdir()
    with pytest.raises(UsageError, match='none has no videos'):
        recognize()(tmp_path / 'none')
    for numbers in ({'top': 0}, {'top': 1.5}, {'top': 'two'}, {'top': True}):
        with pytest.raises(UsageError, match='top is .*; give at least 1, a whole number'):
            recognize()(good, **numbers)
    for numbers in ({'window': 0.0}, {'window': 'two'}, {'window': float('nan')}, {'window': 1.0, 'stride': -1.0}):
        with pytest.raises(UsageError, match='(window|stride) is .*; give seconds, a number above 0'):
            recognize()(good, **numbers)
    with pytest.raises(UsageError, match='stride=2.0 must not be more than window=1.0'):
        recognize()(good, window=1.0, stride=2.0)
    with pytest.raises(UsageError, match=r'\(RawFrameDecode, SampleFrames.*has no steps that open and decode'):
        recognize(opener='RawFrameDecode', decoder='FormatShape')


def test_one_bad_video_of_many_costs_only_itself(tmp_path, recognize, monkeypatch):
    for name in 'ace':
        write(tmp_path / f'in/{name}.mp4', 'red' if name == 'a' else 'blue')
    (tmp_path / 'in/b.mp4').write_bytes(write(tmp_path / 'whole.mp4', 'red').read_bytes()[:700])
    write(tmp_path / 'in/d.mp4', 'red', size=(2, 2))  # smaller than a cell of the model
    (tmp_path / 'in/f.mp4').mkdir()
    os.mkfifo(tmp_path / 'in/g.mp4')
    files = [tmp_path / f'in/{name}.mp4' for name in 'abcdefg']
    results = recognize()(files, top=1, window=0.5, out_dir=tmp_path / 'out')
    assert [result.get('labels', ['failed'])[0] for result in results] == [
        'red', 'failed', 'blue', 'failed', 'blue', 'failed', 'failed'
    ]  # fmt: skip
    for number, words in (
        (1, 'b.mp4 is cut off'),
        (3, 'd.mp4'),
        (5, 'f.mp4 is a folder'),
        (6, 'g.mp4 is a named pipe'),
    ):
        assert words in results[number]['error'] and '\n' not in results[number]['error']
    assert json.loads((tmp_path / 'out/videos.json').read_text())['videos'] == results
    # what is done is there after Ctrl-C
    inferencer = recognize()
    monkeypatch.setattr(video_inferencer, 'open_file', _stops_at(files[2]))
    with pytest.raises(KeyboardInterrupt):
        inferencer(files[:4], top=1, out_dir=tmp_path / 'stopped')
    lines = (tmp_path / 'stopped/videos.json.part').read_text().splitlines()
    assert [json.loads(line)['file'] for line in lines] == [str(file) for file in files[:2]]


def _stops_at(last):
    def open_or_stop(file, backend):
        if file == last:
            raise KeyboardInterrupt
        return open_file(file, backend)

    return open_or_stop


def test_a_model_that_gives_no_numbers_is_told(tmp_path, checkpoint):
    state = torch.load(checkpoint)
    state['state_dict']['cls_head.fc_cls.bias'][1] = float('inf')
    inferencer = VideoInferencer(recognizer_config(), checkpoint, 'cpu', list(COLOURS))
    inferencer.model.load_state_dict(state['state_dict'])
    (result,) = inferencer(write(tmp_path / 'a.mp4', 'red'))
    assert 'a.mp4' in result['error'] and 'scores that are not finite numbers; check its weights' in result['error']


def test_names_of_fixed_classes(tmp_path, recognize):
    path = write(tmp_path / 'a.mp4', 'blue')
    assert recognize(None)(path)[0]['labels'][0] == '2'
    (tmp_path / 'names.txt').write_text('a\nb\nc\n')
    assert recognize(None, classes=str(tmp_path / 'names.txt'))(path)[0]['labels'][0] == 'c'
    (result,) = recognize()(path, 'red, green')
    assert set(result['labels']) == {'red', 'green'}
    with pytest.raises(UsageError, match="'bluh' is none of them; did you mean 'blue'"):
        recognize()(path, 'bluh')
    with pytest.raises(UsageError, match='there are 2 class names, but the model has 3 classes'):
        recognize(['a', 'b'])(path)


def test_free_text_with_a_video_encoder(tmp_path):
    def model():
        made = UniCL(Cells(), world['Words'](), world['tokenize'], 3, logit_scale_init=2.0)
        made.image_projection.data = torch.eye(3)
        made.text_projection.data = torch.eye(3)
        return made

    pack = {'type': 'florence_mm.PackVideoText'}
    config = recognizer_config(num_clips=2)
    config.model = {'type': model, '_scope_': 'florence_mm'}
    config.test_dataloader = replace_step(config.test_dataloader, 'PackActionInputs', pack)
    torch.save(model().state_dict(), tmp_path / 'unicl.pth')
    inferencer = VideoInferencer(config, tmp_path / 'unicl.pth', 'cpu', templates='none')
    path = write(tmp_path / 'a.mp4', 'blue')
    (result,) = inferencer(path, 'red, blue', out_dir=tmp_path / 'out')
    assert result['labels'] == ['blue', 'red'] and sum(result['scores']) == pytest.approx(1)
    (result,) = inferencer(path, ['green', 'blue', 'red'])
    assert result['labels'][0] == 'blue' and len(result['labels']) == 3
    assert inferencer.draw_activation(path, tmp_path / 'strip.png', 'red', classes='red, blue') == 'red'
    with pytest.raises(UsageError, match='needs class names'):
        VideoInferencer(config, tmp_path / 'unicl.pth', 'cpu')(path)


def test_the_command(tmp_path, checkpoint, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('tool_video', ROOT / 'tools/video.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr('florence_mm.config.load.load_config', lambda path, options: recognizer_config())
    write(tmp_path / 'in/one.mp4', 'green')
    (tmp_path / 'names.txt').write_text('\n'.join(COLOURS))
    start = [
        'video.py',
        'config.py',
        str(checkpoint),
        str(tmp_path / 'in'),
        '--class-names',
        str(tmp_path / 'names.txt'),
    ]
    end = ['--out-dir', str(tmp_path / 'out'), '--top', '1']
    strip = tmp_path / 'strip.png'
    monkeypatch.setattr(sys, 'argv', [*start, *end, '--activation-map', str(strip)])
    assert tool.main() == 0
    shown = capsys.readouterr().out
    assert 'one.mp4: green 0.96' in shown and shown.endswith('out: 1 video and videos.json\n')
    assert (tmp_path / 'out/one.mp4').exists() and strip.read_bytes()[1:4] == b'PNG'
    (tmp_path / 'in/two.mp4').write_bytes(b'no video')
    monkeypatch.setattr(sys, 'argv', [*start, *end])
    assert tool.main() == 1
    shown = capsys.readouterr()
    assert 'error: the video' in shown.err and 'two.mp4 ' in shown.err and shown.out.endswith('1 of 2 videos failed\n')
    assert [*json.loads((tmp_path / 'out/videos.json').read_text())['videos'][1]] == ['file', 'error']
    monkeypatch.setattr(sys, 'argv', [*start[:3], str(tmp_path / 'in/two.mp4'), *end])
    assert tool.main() == 2
    capsys.readouterr()
    monkeypatch.setattr(sys, 'argv', [*start, *end, '--activation-map', str(strip)])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: --activation-map draws one video, but there are 2; name one\n'
