"""Test with controls: the same scores with exchanged pictures, with image tokens of zeros, and for texts alone.

A model over images and texts can reach a good score by the texts alone. What it owes to the picture is seen by asking
it about another picture, and about none.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from florence_mm.models.multimodal.protocol import Reader
from florence_mm.models.protocol import unwrap_model
from florence_mm.registry import LOOPS
from florence_mm.utils.nearest import did_you_mean

#: Names of the controls.
CONTROLS = ('exchanged', 'zero', 'alone')
#: Those that every model takes.
_DEFAULT = CONTROLS[:2]


@LOOPS.register_module()
class ControlledTestLoop(TestLoop):
    """Test loop of models over images and texts with controls, in one run.

    The first pass is mmengine's. In the pass ``exchanged`` each sample has the next other picture of its batch, those
    of the last picture have the first (of a batch with one picture, the nearest other one of the batches before, or
    else after); in ``zero`` all image tokens are zeros; in ``alone`` samples have no picture, which only models take
    that are trained on texts alone, such as SimVLM.

    Adds the results ``exchanged/<name>``, ``zero/<name>`` and ``alone/<name>`` for each score. Predictions are saved
    from the first pass alone.

    Args:
        runner, dataloader, evaluator, fp16: passed to :class:`mmengine.runner.TestLoop`.
        controls (Sequence[str]): Names of controls.

    Raises:
        ValueError: a control is unknown, the model has no image tokens or needs a picture, or all samples have the same
            picture.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        controls: Sequence[str] = _DEFAULT,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        for name in controls:
            if name not in CONTROLS:
                known = ', '.join(CONTROLS)
                raise ValueError(
                    f'controls of ControlledTestLoop has {name!r}; it knows {known}{did_you_mean(name, CONTROLS)}'
                )
        self.controls = tuple(controls)

    def run(self) -> dict[str, float]:
        """Run all passes and return all scores."""
        model = unwrap_model(self.runner.model)
        if not isinstance(model, Reader):
            raise ValueError(
                f'ControlledTestLoop got a {type(model).__name__}, which has no image tokens; use it with a model over '
                'images and texts'
            )
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        for name in self.controls:
            metrics.update({f'{name}/{key}': value for key, value in self._run_control(name, model).items()})
        self.runner.call_hook('after_test_epoch', metrics=metrics)  # which logs and writes all
        self.runner.call_hook('after_test')
        return metrics

    @torch.no_grad()
    def _run_control(self, name: str, model: nn.Module) -> dict[str, float]:
        evaluator = Evaluator([metric for metric in self.evaluator.metrics if not getattr(metric, 'only_saves', False)])
        evaluator.dataset_meta = self.evaluator.dataset_meta
        self.runner.logger.info(f'Control: {name}')
        batches = exchange_pictures(self.dataloader) if name == 'exchanged' else self.dataloader
        with without_picture(model) if name == 'zero' else nullcontext():
            for data_batch in batches:
                if name == 'alone':
                    for sample in data_batch['data_samples']:
                        sample.set_field(False, 'pictured')
                with autocast(enabled=self.fp16):
                    outputs = self.runner.model.test_step(data_batch)
                evaluator.process(data_samples=outputs, data_batch=data_batch)
        return evaluator.evaluate(len(self.dataloader.dataset))


def exchange_pictures(batches: Any) -> Iterator[dict[str, Any]]:
    """Yield batches in which each sample has another picture.

    Args:
        batches: batches of a data loader: ``inputs``, one tensor a sample, and ``data_samples``.

    Raises:
        ValueError: all samples have the same picture.
    """
    last: list[Tensor] = []  # the two last pictures, the latest first
    waiting: list[dict[str, Any]] = []  # the first batches, as long as all have the same picture
    for batch in batches:
        pictures: list[Tensor] = []
        which = [_number(pictures, picture) for picture in batch['inputs']]
        if last:
            other = next((picture for picture in pictures if not _same(picture, last[0])), None)
            if other is not None:
                yield from (_with_pictures(one, [other] * len(one['inputs'])) for one in waiting)
                waiting = []
        others = [*pictures[1:], pictures[0]]
        if len(pictures) == 1:
            others = [picture for picture in last if not _same(picture, pictures[0])][:1]
        last = _latest([*reversed(pictures), *last])
        if others:
            yield _with_pictures(batch, [others[number] for number in which])
        else:
            waiting.append(batch)
    if waiting:
        count = sum(len(batch['inputs']) for batch in waiting)
        raise ValueError(
            f'all {count} samples of the test have the same picture, which cannot be exchanged; test with several, or '
            "leave 'exchanged' out of controls"
        )


def _with_pictures(batch: dict[str, Any], pictures: list[Tensor]) -> dict[str, Any]:
    return {**batch, 'inputs': torch.stack(pictures) if isinstance(batch['inputs'], Tensor) else pictures}


def _latest(pictures: list[Tensor]) -> list[Tensor]:
    """The first of the pictures, and the next that is not the same."""
    return [pictures[0], *[picture for picture in pictures[1:] if not _same(picture, pictures[0])][:1]]


def _number(pictures: list[Tensor], picture: Tensor) -> int:
    """Number of a picture among the different ones, to which it is added if it is new."""
    for number, known in enumerate(pictures):
        if _same(known, picture):
            return number
    pictures.append(picture)
    return len(pictures) - 1


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


@contextmanager
def without_picture(model: nn.Module) -> Iterator[None]:
    """Make a model encode each image to zeros."""
    encode: Callable[[Tensor], Tensor] = model.encode_image
    model.encode_image = lambda inputs: torch.zeros_like(encode(inputs))
    try:
        yield
    finally:
        del model.encode_image
