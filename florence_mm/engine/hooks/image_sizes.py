"""Training on images of several sizes in turns."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook

from florence_mm.errors import UsageError, shown
from florence_mm.models.protocol import ResizesBatches, unwrap_model
from florence_mm.registry import HOOKS
from florence_mm.utils.numbers import is_whole


@HOOKS.register_module()
class ImageSizesHook(Hook):
    """Give the images of each training iteration one of several sizes, in turns.

    Iteration ``i``, from 0, has ``sizes[i % len(sizes)]``, as in GIT's pretraining (``train.py`` of its public code),
    on all processes, and in a resumed run as in one that was not stopped. The data preprocessor resizes the batch on
    its device, so the pipeline should give the largest size. Validation and test keep the pipeline's size.

    Args:
        sizes (Sequence[int]): Sides of the square images in pixels.

    Raises:
        ValueError: a size is no positive number of pixels, or there are none.
        UsageError: the data preprocessor of the model does not resize batches.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        sizes = list(sizes) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else []
        if not sizes or not all(is_whole(size) and size > 0 for size in sizes):
            raise ValueError(f'sizes={shown(sizes)} of ImageSizesHook must be numbers of pixels, at least one')
        self.sizes = sizes

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the size of the iteration."""
        self._preprocessor(runner).set_train_size(self.sizes[runner.iter % len(self.sizes)])

    def after_train(self, runner: Any) -> None:
        """Let batches keep their size again."""
        self._preprocessor(runner).set_train_size(None)

    def _preprocessor(self, runner: Any) -> ResizesBatches:
        preprocessor = getattr(unwrap_model(runner.model), 'data_preprocessor', None)
        if not isinstance(preprocessor, ResizesBatches):
            raise UsageError(
                f'{type(preprocessor).__name__} of the model does not resize batches, which ImageSizesHook needs; take '
                "data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'), or leave the hook out"
            )
        return preprocessor
