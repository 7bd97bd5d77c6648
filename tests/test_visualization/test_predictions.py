import cv2
import numpy as np
import pytest
import torch

from florence_mm.visualization import draw_prediction, draw_prediction_grid, draw_retrieval_grid
from florence_mm.visualization.canvas import RIGHT, SHADE, WRONG, fit_image, fit_names, fit_text, font, tile, wrap_text
from florence_mm.visualization.predictions import IMAGE_SIZE, MARGIN, PANEL_WIDTH

NAMES = ['zero', 'one', 'two', 'three']
LEFT = IMAGE_SIZE + MARGIN


def plain(value, height=20, width=20):
    return np.full((height, width, 3), value, dtype=np.uint8)


def bar(cell, row):
    """Colour and length in pixels of the bar of a row."""
    line = cell[30 * row + 20, LEFT:].astype(int)
    filled = [tuple(pixel) for pixel in line if tuple(pixel) != SHADE]
    assert len(set(filled)) <= 1
    return (filled[0] if filled else None), len(filled)


def test_bars_show_the_best_classes():
    scores = torch.tensor([0.1, 0.5, 0.25, 0.15])
    cell = draw_prediction(plain(200), scores, NAMES, gt_label=1)
    assert cell.shape == (112, LEFT + PANEL_WIDTH, 3)
    assert (cell[:IMAGE_SIZE, :IMAGE_SIZE] == 200).all()
    assert bar(cell, 0) == (RIGHT, 84)  # 0.5 of 168 pixels
    assert bar(cell, 1)[1] == 42
    assert bar(cell, 2)[1] == 25
    wrong = draw_prediction(plain(200), scores, NAMES, gt_label=3)
    assert bar(wrong, 0) == (WRONG, 84)
    assert bar(wrong, 1)[0] not in (RIGHT, WRONG)
    assert bar(wrong, 2)[0] == RIGHT  # the right class is third
    unknown = draw_prediction(plain(200), scores, NAMES)
    assert bar(unknown, 0)[0] not in (RIGHT, WRONG)


def test_equal_scores_keep_the_order_of_classes():
    cell = draw_prediction(plain(0), torch.full((4,), 0.25), NAMES, gt_label=0)
    assert bar(cell, 0)[0] == RIGHT
    assert bar(draw_prediction(plain(0), torch.full((4,), 0.25), NAMES, gt_label=1), 0)[0] == WRONG


def test_the_right_class_is_named_only_below_a_wrong_answer():
    scores = torch.tensor([0.7, 0.1, 0.1, 0.1])
    below = [draw_prediction(plain(0), scores, NAMES, label)[92:, LEFT:] for label in (0, 1, None)]
    assert [(image < 255).any() for image in below] == [False, True, False]


def test_odd_input():
    for scores in (torch.tensor([float('nan')] * 4), torch.tensor([2.0, -1.0, 0.0, 0.0]), torch.ones(4).half()):
        assert draw_prediction(plain(0), scores, NAMES, 0).shape == (112, 290, 3)
    assert draw_prediction(plain(0, 300, 2), torch.ones(4), ['x' * 200] * 4, 0, top=5).shape == (172, 290, 3)
    assert draw_prediction(plain(0), torch.ones(1), ['only'], 0).shape == (112, 290, 3)
    with pytest.raises(ValueError, match=r'must be one for each of 4 classes'):
        draw_prediction(plain(0), torch.ones(3), NAMES)
    with pytest.raises(ValueError, match='gt_label=4 is outside the 4 classes'):
        draw_prediction(plain(0), torch.ones(4), NAMES, 4)
    with pytest.raises(ValueError, match=r'expected \(H, W, 3\) uint8'):
        draw_prediction(np.zeros((4, 4), dtype=np.uint8), torch.ones(4), NAMES)


def test_grid(tmp_path):
    images = [plain(40 * i) for i in range(5)]
    scores = torch.eye(4)[[0, 1, 2, 3, 0]]
    path = tmp_path / 'new/grid.png'
    draw_prediction_grid(images, NAMES, scores, torch.tensor([0, 1, 2, 3, 1]), path, columns=2)
    sheet = cv2.imread(str(path))[..., ::-1]
    # three rows of two cells, 18 pixels apart, and 36 for the title
    assert sheet.shape == (36 + 3 * 130 + 18, 2 * (290 + 18) + 18, 3)
    for i in range(5):
        row, column = divmod(i, 2)
        corner = sheet[36 + 18 + 130 * row, 18 + 308 * column]
        assert corner.tolist() == [40 * i] * 3
    assert (sheet[36 + 18 + 260 :, 18 + 308 :] == 255).all()  # no sixth cell
    first = path.read_bytes()
    draw_prediction_grid(images, NAMES, scores, [0, 1, 2, 3, 1], path, columns=2)
    assert path.read_bytes() == first
    draw_prediction_grid(images, NAMES, scores, None, path, columns=2)
    assert cv2.imread(str(path)).shape[0] == 3 * 130 + 18
    for bad in ((images, scores[:3], None), (images, scores, [0]), ([], scores[:0], None)):
        with pytest.raises(ValueError, match='the numbers must agree and not be 0'):
            draw_prediction_grid(bad[0], NAMES, bad[1], bad[2], path)
    with pytest.raises(ValueError, match='must end in .png'):
        draw_prediction_grid(images, NAMES, scores, None, tmp_path / 'grid.jpg')


def test_retrieval_grid(tmp_path):
    images = [plain(50 * i) for i in range(4)]
    similarity = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.9, 0.1, 0.2, 0.3]])
    path = tmp_path / 'r.png'
    draw_retrieval_grid(['short', 'long ' * 100], images, similarity, path, right=[{1}, {3, 2}], top=3)
    sheet = cv2.imread(str(path))[..., ::-1]
    for row, (order, right) in enumerate(([(1, 2, 3), {1}], [(0, 3, 2), {2, 3}])):
        for place, index in enumerate(order):
            top, left = 12 + row * (132 + 12), 12 + 220 + 122 * place
            assert tuple(sheet[top, left]) == (RIGHT if index in right else WRONG)
            assert (sheet[top + 20, left + 20] == 50 * index).all()
    with pytest.raises(ValueError, match='must be 1 texts by 4 images'):
        draw_retrieval_grid(['a'], images, similarity, path)
    with pytest.raises(ValueError, match='2 texts, but right images for 1'):
        draw_retrieval_grid(['a', 'b'], images, similarity, path, right=[{0}])


def test_text_fits():
    face = font(13)
    for text in ('short', 'a much longer text that has to be cut', 'W' * 100, ''):
        cut = fit_text(text, face, 80)
        assert face.getlength(cut) <= 80
        assert cut == text or cut.endswith('…') and text.startswith(cut[:-1])
    lines = wrap_text('one two three four five six seven', face, 80, lines=3)
    assert len(lines) == 3
    assert all(face.getlength(line) <= 80 for line in lines)
    assert ' '.join(wrap_text('one two three', face, 80, lines=3)) == 'one two three'
    assert wrap_text('', face, 80, lines=3) == []


def test_fit_image_keeps_the_shape_of_things():
    fitted = fit_image(plain(9, 10, 40), 100, 100)
    assert (fitted == 9).all(-1).sum() == 25 * 100
    assert (fitted[37:62] == 9).all()
    assert tuple(fitted[0, 0]) == SHADE
    assert fit_image(plain(9, 1000, 1), 10, 10).shape == (10, 10, 3)
    assert tile([plain(1), plain(2)], columns=5, gap=4).shape == (28, 52, 3)


def test_names_that_are_cut_stay_different():
    face = font(13)
    long = [f'a photograph of a dog that looks to the {side}' for side in ('left', 'right', 'left, far away')]
    names = ['cat', *long, 'cat', 'another text that is too long for its place']
    shown = fit_names(names, face, 120)
    assert list(shown) == list(dict.fromkeys(names))
    assert shown['cat'] == 'cat'
    # by their place among the names, whatever is drawn with them
    assert [shown[name].rpartition('…')[2] for name in long] == ['2', '3', '4']
    assert all(text.startswith('a photo') for text in map(shown.get, long)) and len(set(shown.values())) == len(shown)
    assert shown[names[-1]] == fit_text(names[-1], face, 120)
    assert all(face.getlength(text) <= 120 for text in shown.values())
