import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from PIL import Image, ImageDraw

from florence_mm.apis import MultimodalInferencer
from florence_mm.errors import DataError, UsageError
from florence_mm.models.checkpoints import write_safetensors
from florence_mm.models.multimodal.protocol import Written
from florence_mm.models.preprocessor import ImageTextDataPreprocessor
from florence_mm.visualization.canvas import FAINT, INK, PAPER, fit_image, font

ROOT = Path(__file__).parents[2]
tiny_meter = runpy.run_path(str(ROOT / 'tests/test_models/tiny_meter.py'))['tiny_meter']
ANSWERS = ['two', 'yes', 'no', 'red']
HEADS = {
    'vqa': {'type': 'FusionVQAHead', 'num_answers': 4},
    'itm': {'type': 'FusionITMHead'},
    'caption': {'type': 'FusionCaptionHead', 'max_length': 4},
}
QUESTIONS = ['how many digits are there?', 'is there a two?']


def model(heads=HEADS, **kwargs):
    return lambda: tiny_meter(heads, **kwargs)


def config(make=None, **dataset):
    pipeline = [
        {'type': 'florence_mm.LoadImage'},
        {'type': 'mmcv.Resize', 'scale': (24, 16)},
        {'type': 'florence_mm.PackVQA'},
    ]
    dataset = {'type': 'florence_mm.VQADataset', 'question_file': 'nowhere.json', 'pipeline': pipeline, **dataset}
    return Config({'model': {'type': make or model()}, 'test_dataloader': {'dataset': dataset}})


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / 'model.pth'
    torch.save({'state_dict': tiny_meter(HEADS).state_dict(), 'meta': {'dataset_meta': {'answers': ANSWERS}}}, file)
    return file


@pytest.fixture
def inferencer(checkpoint):
    return MultimodalInferencer(config(), checkpoint, 'cpu')


def picture(seed=0, shape=(16, 24)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def normalised(*images):
    rows = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    return ImageTextDataPreprocessor()({'inputs': rows})['inputs']


def test_answers_matches_and_captions_are_those_of_the_model(inferencer):
    images, sentences = [picture(0), picture(1)], ['a red two', 'no digits', 'a nine']
    inferencer.model.image_encoder.seen = 0
    results = inferencer(images, QUESTIONS, sentences, caption=True, top=2)
    assert inferencer.model.image_encoder.seen == 2  # each picture once
    meter, inputs = tiny_meter(HEADS), normalised(*images)
    for number, result in enumerate(results):
        assert (result['file'], result['width'], result['height']) == (None, 24, 16)
        samples = [DataSample(text=question) for question in QUESTIONS]
        meter.heads.vqa.predict(meter.make_batch(inputs[number : number + 1], samples, [0, 0]))
        for asked, sample in zip(result['answers'], samples, strict=True):
            order = sample.pred_scores.argsort(descending=True)[:2].tolist()
            assert asked['question'] == sample.text and asked['answers'] == [ANSWERS[i] for i in order]
            assert asked['scores'] == pytest.approx(sample.pred_scores[order].tolist(), abs=6e-5)
        with torch.no_grad():
            pairs = meter.match(meter.encode_image(inputs), sentences, [(number, i) for i in range(3)]).sigmoid()
            written = meter.heads.caption.decode(meter, meter.encode_image(inputs[number : number + 1]))
        assert [match['sentence'] for match in result['matches']] == sentences
        assert [match['score'] for match in result['matches']] == pytest.approx(pairs.tolist(), abs=6e-5)
        assert result['caption'] == meter.tokenizer.decode(written.ids[0])
        mean = written.log_probs.item() / (len(written.ids[0]) + 1)
        assert result['caption_score'] == pytest.approx(mean, abs=6e-5)
    assert results[0]['answers'] != results[1]['answers']
    json.dumps(results)


def test_batches_give_what_single_pictures_give(inferencer, checkpoint):
    images = [picture(i, (16 + i, 24)) for i in range(5)]
    questions = [f'is there a {i}?' for i in range(30)]  # more pairs than are fused together
    three = MultimodalInferencer(config(), checkpoint, 'cpu', batch_size=3)
    for one, other in zip(inferencer(images, questions), three(images, questions), strict=True):
        for left, right in zip(one.pop('answers'), other.pop('answers'), strict=True):
            assert left['scores'] == pytest.approx(right['scores'], abs=2e-4) and left['question'] == right['question']
        assert one == other


def test_where_answers_come_from(checkpoint):
    named = {'vqa': {'type': 'FusionVQAHead', 'answers': ['a', 'b', 'c', 'd']}, **{k: HEADS[k] for k in ('itm',)}}
    assert MultimodalInferencer(config(model(named)), None, 'cpu').answers == ['a', 'b', 'c', 'd']
    assert MultimodalInferencer(config(), None, 'cpu').answers == ['0', '1', '2', '3']
    named['vqa']['answers'] = [ANSWERS[1], ANSWERS[0], *ANSWERS[2:]]
    with pytest.raises(UsageError, match='are not those that the checkpoint was trained on'):
        MultimodalInferencer(config(model(named)), checkpoint, 'cpu')
    state = torch.load(checkpoint, weights_only=True)
    path = write_safetensors(checkpoint.with_suffix('.safetensors'), state['state_dict'], state['meta'])
    assert MultimodalInferencer(config(), path, 'cpu').answers == ANSWERS
    state['meta']['dataset_meta']['answers'] = ANSWERS[:3]
    torch.save(state, checkpoint)
    with pytest.raises(UsageError, match='trained on 3 answers and the VQA head has 4'):
        MultimodalInferencer(config(), checkpoint, 'cpu')


def test_files_folders_and_bad_pictures(inferencer, tmp_path):
    folder = tmp_path / 'in/a'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / 'one.png'), picture()[..., ::-1])
    (folder / 'two.png').write_bytes(b'')
    with pytest.raises(DataError, match='two.png is an empty file'):
        inferencer(tmp_path / 'in', 'how many?', skip_bad=False)
    results = inferencer(tmp_path / 'in', 'how many?', out=tmp_path / 'results/vqa.json')
    assert results[0]['answers'] == inferencer(picture(), 'how many?')[0]['answers']
    assert 'two.png is an empty file' in results[1]['error'] and results[1].keys() == {'file', 'error'}
    assert json.loads((tmp_path / 'results/vqa.json').read_text()) == {'images': results}
    assert [path.name for path in (tmp_path / 'results').iterdir()] == ['vqa.json']


def test_what_is_no_file_is_no_image_of_a_folder(inferencer, tmp_path):
    cv2.imwrite(str(tmp_path / 'one.png'), picture())
    (tmp_path / 'folder.png').mkdir()
    if hasattr(os, 'mkfifo'):  # reading it would wait for ever
        os.mkfifo(tmp_path / 'pipe.png')
    assert [Path(result['file']).name for result in inferencer(tmp_path, 'how many?')] == ['one.png']


@pytest.mark.parametrize('device', ['nowhere', 'cuda:99'])
def test_a_device_that_is_not_there(checkpoint, device):
    with pytest.raises(UsageError, match=f"device '{device}' cannot be used .*; give one that this machine has"):
        MultimodalInferencer(config(), checkpoint, device)


def test_what_cannot_be_asked(inferencer):
    with pytest.raises(UsageError, match='nothing is asked'):
        inferencer(picture())
    with pytest.raises(UsageError, match='a question is empty'):
        inferencer(picture(), ['how many?', ' '])
    with pytest.raises(UsageError, match='top is 0'):
        inferencer(picture(), 'how many?', top=0)
    only_itm = MultimodalInferencer(config(model({'itm': HEADS['itm']})), None, 'cpu')
    with pytest.raises(ValueError, match='no head that writes captions, it has itm; .* FusionCaptionHead'):
        only_itm(picture(), caption=True)
    with pytest.raises(UsageError, match='is of a BaseModule; give one of a vision-language model'):
        MultimodalInferencer(config(BaseModule), None, 'cpu')


def test_attention_is_that_of_the_word(inferencer, tmp_path):
    image, text = picture(), 'is there a red two?'
    weights = inferencer.draw_attention(image, text, 'two', tmp_path / 'two.png', layers=[1])
    assert weights.shape == (2, 3) and weights.sum().item() == pytest.approx(1, abs=1e-5)
    # a word's weights change where the picture does, and another word has others
    other = inferencer.draw_attention(image, text, 'red', tmp_path / 'red.png', layers=[1])
    assert not torch.allclose(weights, other, atol=1e-3)
    meter = tiny_meter(HEADS)
    with torch.no_grad():
        tokens, text_tokens = meter.encode_text([text])
        fused = meter.fuse(text_tokens, tokens.mask, meter.encode_image(normalised(image)), [0, 1])
    place = meter.tokenizer([text], 12).input_ids[0].tolist().index(meter.tokenizer(['two'], 12).input_ids[0, 1])
    by_layer = [fused.attention[layer].text_to_image[0, :, place].mean(0).view(2, 3) for layer in (0, 1)]
    torch.testing.assert_close(weights, by_layer[1])
    both = inferencer.draw_attention(image, text, 'two', tmp_path / 'all.png')
    torch.testing.assert_close(both, (by_layer[0] + by_layer[1]) / 2)
    drawn = cv2.imread(str(tmp_path / 'two.png'))[..., ::-1]
    assert drawn.shape == (14 * 16 + 54, 2 * 14 * 24 + 10, 3)
    assert abs(drawn[7, 7].astype(int) - image[0, 0]).max() < 30
    with pytest.raises(ValueError, match="'blue' is not in the text"):
        inferencer.draw_attention(image, text, 'blue', tmp_path / 'no.png')
    with pytest.raises(ValueError, match=r'layers are \[7\]'):
        inferencer.draw_attention(image, text, 'two', tmp_path / 'no.png', layers=[7])
    assert not (tmp_path / 'no.png').exists()


def test_the_command(checkpoint, tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(ROOT / 'tools/vqa.py'))
    main = tool['main']
    monkeypatch.setattr('florence_mm.config.load.load_config', lambda path, options: config())
    file = tmp_path / 'one.png'
    cv2.imwrite(str(file), picture()[..., ::-1])

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['vqa.py', 'config.py', *map(str, arguments)])
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    out, png = tmp_path / 'out.json', tmp_path / 'two.png'
    asked = ['--question', QUESTIONS[0], '--question', QUESTIONS[1], '--match', 'a nine', '--caption', '--out', out]
    status, shown, _ = run(checkpoint, file, *asked, '--attention', 'two', png, '--top', 1)
    (result,) = json.loads(out.read_text())['images']
    assert status == 0 and png.stat().st_size
    best = result['answers'][1]
    lines = shown.splitlines()
    assert lines[0] == f'{file}:' and lines[2] == f'  {QUESTIONS[1]} {best["answers"][0]} ({best["scores"][0]:.2f})'
    assert lines[3] == f'  {result["matches"][0]["score"]:.2f} a nine' and lines[4] == f'  {result["caption"]}'
    assert lines[5] == f"{png}: attention to 'two' in {QUESTIONS[1]!r}" and lines[6] == f'{out}: 1 image'
    status, shown, error = run(checkpoint, file, tmp_path / 'none.png', '--question', 'how many?')
    assert status == 1 and shown.startswith(f'{file}:') and 'none.png cannot be read' in error
    assert shown.endswith('\n1 of 2 images failed\n')
    for arguments, sentence in (
        ((file,), 'nothing is asked about the images'),
        ((file, '--caption', '--attention', 'blue', png), "the word 'blue' is not in the text"),
        ((file, file, '--caption', '--attention', 'blue', png), '--attention draws one image, but there are 2'),
        ((file, '--caption', '--attention', 'blue', 'a.jpg'), 'a.jpg must end in .png'),
    ):
        status, _, error = run(checkpoint, *arguments)
        assert status == 2 and error.startswith('error: ') and sentence in error and error.count('\n') == 1
    with monkeypatch.context() as patch:  # a model without attention is refused before it looks at a picture
        patch.setattr('florence_mm.apis.multimodal_inferencer.Attending', ())
        status, shown, error = run(checkpoint, file, '--caption', '--attention', 'blue', png)
        assert status == 2 and not shown and 'has no attention to draw' in error
    assert run('nowhere.pth', file, '--caption')[2] == 'error: checkpoint nowhere.pth does not exist; check the path\n'


def test_captions_have_no_space_before_punctuation(inferencer, monkeypatch):
    monkeypatch.setattr(inferencer.model, 'write', lambda tokens: [Written('one digit : a five , red', -1.0)])
    assert inferencer(picture(), caption=True)[0]['caption'] == 'one digit: a five, red'


def test_answers_are_drawn_below_their_image(inferencer, tmp_path):
    images = [picture(), np.full((16, 24, 3), 90, np.uint8)]
    said = inferencer(images, QUESTIONS[0], 'a nine', caption=True, top=2, out_dir=tmp_path)
    assert [one['picture'] for one in said] == ['picture.png', 'picture_2.png']
    for image, one in zip(images, said, strict=True):
        drawn = cv2.imread(str(tmp_path / one['picture']))[..., ::-1]
        height = 213  # of the image, 320 wide
        np.testing.assert_array_equal(drawn[:height], fit_image(image, height, 320))
        best, match = one['answers'][0], one['matches'][0]
        texts = [QUESTIONS[0], f'{best["answers"][0]} ({best["scores"][0]:.2f})', f'{match["score"]:.2f} a nine']
        rows = [*((text, number == 0) for number, text in enumerate(texts)), (one['caption'], False)]
        lines = [line for line in rows if line[0]]  # an untrained model may write nothing
        assert drawn.shape == (height + 10 + 21 * len(lines), 320, 3)
        for number, (text, bold) in enumerate(lines):
            by_hand = Image.new('RGB', (320, 21), PAPER)
            ImageDraw.Draw(by_hand).text((5, 0), text, font=font(15, bold=bold), fill=INK if bold else FAINT)
            top = height + 5 + 21 * number
            np.testing.assert_array_equal(drawn[top : top + 21], np.array(by_hand))


def test_images_of_other_sizes_in_a_batch(checkpoint):
    """Without a resizing step they fit only alone; an image without rows fits nowhere."""
    cfg = config()
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [pipeline[0], pipeline[2]]
    images = [picture(0), picture(1, (32, 24)), picture(2, (0, 24)), picture(3)]
    alone = [MultimodalInferencer(cfg, checkpoint, 'cpu')(image, 'how many?')[0] for image in images]
    four = MultimodalInferencer(cfg, checkpoint, 'cpu', batch_size=4)(images, 'how many?')
    assert ['error' in result for result in four] == [False, False, True, False]
    assert four[2] == alone[2]
    for one, other in zip(four[:2] + four[3:], alone[:2] + alone[3:], strict=True):
        assert one['height'] == other['height']
        assert one['answers'][0]['scores'] == pytest.approx(other['answers'][0]['scores'], abs=2e-4)


def test_outputs_do_not_replace_inputs(inferencer, tmp_path):
    file = tmp_path / 'one.png'
    cv2.imwrite(str(file), picture())
    before = file.read_bytes()
    with pytest.raises(UsageError, match='path .*one.png is the input'):
        inferencer.draw_attention(file, 'is there a two?', 'two', file)
    (tmp_path / 'same.json').symlink_to(file)
    with pytest.raises(UsageError, match='out .*same.json is the input'):
        inferencer(file, 'how many?', out=tmp_path / 'same.json')
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir())[1:] == ['one.png', 'same.json']


def test_a_re_ranker_matches(tmp_path):
    """The scores are those of its fusion model."""

    class Reranking(BaseModule):
        def __init__(self):
            super().__init__()
            self.matcher = tiny_meter(HEADS)

        def match_pictures(self, data, texts, pairs, pairs_at_once=64):
            raise NotImplementedError

        def similarity_scale(self):
            return 1.0

    file = tmp_path / 'both.pth'
    torch.save({'state_dict': Reranking().state_dict(), 'meta': {}}, file)
    sentences = ['a red two', 'no digits']
    (result,) = MultimodalInferencer(config(Reranking), file, 'cpu')(picture(), sentences=sentences)
    meter = tiny_meter(HEADS)
    with torch.no_grad():
        scores = meter.match(meter.encode_image(normalised(picture())), sentences, [(0, 0), (0, 1)]).sigmoid()
    assert [match['score'] for match in result['matches']] == pytest.approx(scores.tolist(), abs=6e-5)


def test_counts_below_one(inferencer):
    meter, tokens = inferencer.model, torch.zeros(1, 6, inferencer.model.hidden_size)
    with pytest.raises(ValueError, match='top is -1; ask for at least 1 answer'):
        meter.answer(tokens, ['how many?'], [(0, 0)], top=-1)
    for at_once in (0, -3):
        with pytest.raises(ValueError, match=f'at_once is {at_once}; fuse at least 1'):
            meter.match(tokens, ['a two'], [(0, 0)], at_once=at_once)
    with pytest.raises(ValueError, match='layers is empty; name at least one'):
        inferencer.draw_attention(picture(), 'a two', 'two', 'no.png', layers=[])
    for top in (0, -1, 1.5, True, 'all'):
        with pytest.raises(UsageError, match=f'top is {top!r}; give at least 1'):
            inferencer(picture(), 'how many?', top=top)


def test_two_heads_for_one_task():
    """Their losses and predictions would have one name."""
    heads = {'a': HEADS['vqa'], 'b': {'type': 'FusionVQAHead', 'num_answers': 7}}
    with pytest.raises(ValueError, match='the heads a and b are each one that answers questions; leave one'):
        tiny_meter(heads)
