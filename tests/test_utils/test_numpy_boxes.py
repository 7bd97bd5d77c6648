import numpy as np

from florence_mm.utils.boxes import box_iou


def test_box_iou_by_hand():
    first = np.array([[0, 0, 4, 4], [2, 2, 3, 3]])
    second = np.array([[2, 0, 6, 4], [4, 0, 8, 4], [0, 0, 4, 4]])
    # 8 of 24 pixels; side by side; the same; and a pixel inside
    np.testing.assert_allclose(box_iou(first, second), [[8 / 24, 0, 1], [1 / 16, 0, 1 / 16]])
    assert box_iou(first, second[:0]).shape == (2, 0)
