"""Collating samples to batches that cost little to hand over from a loading process."""

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import get_worker_info

from florence_mm.registry import FUNCTIONS

# numpy's arrays are pickled in a twentieth of the time of torch's tensors
_BY_NUMPY = (torch.bool, torch.uint8, torch.int64, torch.float32)


@FUNCTIONS.register_module()
def collate_in_one_piece(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate packed samples as mmengine's ``pseudo_collate`` does, images of one shape stacked.

    A worker sends each tensor through shared memory of its own, which costs the training process 0.1 ms; so a batch of
    small images takes longer to receive than to load. Here the images are one tensor and the data samples one string
    of bytes, which is unpickled when the training process receives it. Without workers nothing is pickled.

    Args:
        samples: ``dict(inputs=Tensor, data_samples=...)`` each.

    Returns:
        ``inputs``, ``(B, ...)`` if all inputs have one shape and type, otherwise a list; ``data_samples``, a list
        in the training process.

    Raises:
        TypeError: a sample is not such a dict, or what a worker has to send cannot be pickled.
    """
    for sample in samples:
        if not (isinstance(sample, Mapping) and isinstance(sample.get('inputs'), Tensor) and 'data_samples' in sample):
            found = f'the keys {", ".join(map(str, sample))}' if isinstance(sample, Mapping) else type(sample).__name__
            raise TypeError(
                f"collate_in_one_piece got a sample with {found}, not a tensor 'inputs' and 'data_samples'; end its "
                'pipeline with a step that packs, such as PackImageText, or collate by pseudo_collate'
            )
    if not samples:
        raise TypeError('collate_in_one_piece got no sample; give at least one')
    batch = pseudo_collate(samples)
    inputs = batch['inputs']
    if len({(image.shape, image.dtype) for image in inputs}) == 1:
        batch['inputs'] = torch.stack(inputs)
    if get_worker_info() is not None:
        batch['data_samples'] = _Pickled(batch['data_samples'])
    return batch


class _Pickled:
    """A value that arrives in another process as itself, its tensors by value instead of through shared memory."""

    def __init__(self, value: Any) -> None:
        file = io.BytesIO()
        try:
            # now, as an error of the thread that sends would leave the training process waiting for ever
            _ByValue(file, pickle.HIGHEST_PROTOCOL).dump(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f'a data sample cannot be sent from its worker ({error}); take num_workers=0') from error
        self.content = file.getvalue()

    def __reduce__(self) -> tuple:
        return pickle.loads, (self.content,)


class _ByValue(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.dtype in _BY_NUMPY and value.layout is torch.strided and value.is_cpu:
            return torch.from_numpy, (value.numpy(force=True),)
        return NotImplemented
