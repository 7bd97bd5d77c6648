"""Saving predictions to a file, and drawing them on images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from florence_mm.errors import UsageError
from florence_mm.models.multimodal.protocol import VisionLanguage
from florence_mm.models.protocol import unwrap_model
from florence_mm.utils.files import lies_in, replacing, write_atomic
from florence_mm.visualization.canvas import save_png

from .drawn_samples import draw_tested, sample_stem
from .hooks.run_summary import plain


class SavePredictions(BaseMetric):
    """Write the predictions of all processes to one file, in the order of the data.

    A ``.pt`` file has a list of dicts of tensors, numbers and strings, readable by ``torch.load(weights_only=True)``; a
    ``.json`` file has lists instead of tensors.

    Args:
        path (str): The file to write.

    Raises:
        UsageError: the file name has another extension, or its folder cannot be created.
    """

    default_prefix = 'predictions'

    #: it has no scores, and is told apart by this where scores are taken several times
    only_saves = True

    def __init__(self, path: str) -> None:
        super().__init__(collect_device='cpu')
        self.path = Path(path)
        if self.path.suffix not in ('.pt', '.json'):
            raise UsageError(f'--out {path} must end in .pt or .json')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f'--out {path}: the folder cannot be made ({error.strerror}); choose another') from error

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Collect the predictions of a batch, on the CPU."""
        self.results += [to_plain_data(sample) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        """Write the file; there are no metrics."""
        if self.path.suffix == '.json':
            write_atomic(self.path, json.dumps(plain(results)) + '\n')
        else:
            with replacing(self.path) as temporary:
                torch.save(results, temporary)
        print_log(f'{len(results)} predictions written to {self.path}', logger='current')
        return {}


def to_plain_data(value: Any) -> Any:
    """Convert samples, arrays and containers to dicts, CPU tensors, lists, numbers and strings."""
    if isinstance(value, BaseDataElement):
        return {key: to_plain_data(item) for key, item in (*value.metainfo_items(), *value.items())}
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        # a view would be saved with its whole batch
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(value.copy())
    if isinstance(value, (list, tuple, np.ndarray)):
        return [to_plain_data(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


class ShowPredictionsHook(Hook):
    """Draw tested samples with their predictions, as PNG files named after their files.

    Boxes, classes, answers, captions, matches and classes of clips are drawn, see
    :func:`~florence_mm.engine.drawn_samples.draw_tested`.

    Args:
        folder (str): Folder of the PNG files; it is created.
        interval (int): Draw every n-th sample. Defaults to 1.
        score_thr (float): Lowest score of drawn boxes. Defaults to 0.3.

    Raises:
        UsageError: a number is out of range, the folder holds the tested images, or the model predicts none of these,
            such as one that is tested for retrieval.
    """

    priority = 'LOW'

    def __init__(self, folder: str, interval: int = 1, score_thr: float = 0.3) -> None:
        if interval < 1 or not 0 <= score_thr <= 1:
            raise UsageError(f'interval={interval} must be at least 1, and score_thr={score_thr} from 0 to 1')
        self.folder = Path(folder)
        self.interval = interval
        self.score_thr = score_thr

    def before_test(self, runner: Any) -> None:
        """Create the folder and reset the count of samples."""
        self._count = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f'--show-dir {self.folder} cannot be made ({error.strerror}); choose another') from error
        dataset = runner.test_dataloader.dataset
        self._meta = dict(getattr(dataset, 'metainfo', None) or {})
        model = unwrap_model(runner.model)
        if isinstance(model, VisionLanguage):
            self._meta['answers'] = model.answer_names()
        self._bgr = loads_bgr(dataset)

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw a batch, whose ``inputs`` are images or clips as the test pipeline packs them."""
        inputs = data_batch['inputs']
        if isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], (list, tuple)):
            inputs = inputs[0]  # the first view of test-time augmentation
        for one, sample in zip(inputs, outputs, strict=True):
            number, self._count = self._count, self._count + 1
            if number % self.interval:
                continue
            drawn = draw_tested(one, sample, self._meta, self._bgr, self.score_thr) if hasattr(sample, 'get') else None
            if drawn is None:
                raise UsageError(
                    f'--show-dir draws classes, boxes, answers, captions and matches, and {type(runner.model).__name__}'
                    ' predicts none of them; leave it out'
                )
            file = sample.get('img_path')
            if file and lies_in(file, self.folder):
                raise UsageError(f'--show-dir {self.folder} holds the tested image {file}; choose another folder')
            name = f'{number * runner.world_size + runner.rank:06d}_{sample_stem(sample)}.png'
            save_png(drawn, self.folder / name)


def loads_bgr(dataset: Any) -> bool:
    """Whether a data set's pipeline loads images as BGR, as mmcv's and mmdet's loaders do; ours and videos are RGB."""
    while not hasattr(dataset, 'pipeline') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    names = [type(step).__name__ for step in steps]
    return any('LoadImage' in name and name != 'LoadImage' for name in names)


def files_named_in(node: Any, root: str = '') -> Iterator[Path]:
    """Yield the paths of files that a config of data names, as they are and below its ``data_root``.

    >>> [str(path) for path in files_named_in({'dataset': {'data_root': 'data', 'ann_file': 'a.json', 'seed': 1}})]
    ['a.json', 'data/a.json']
    """
    if isinstance(node, Mapping):
        root = node.get('data_root') or root
    values = node.values() if isinstance(node, Mapping) else node
    for value in values:
        if isinstance(value, (Mapping, list, tuple)):
            yield from files_named_in(value, root)
        elif isinstance(value, str) and Path(value).suffix:
            yield Path(value)
            yield Path(root, value)
