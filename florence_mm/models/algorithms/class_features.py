"""Text features of a set of classes, cached until the weights change.

Shape legend: ``K`` classes, ``P`` templates, ``D`` channels.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from florence_mm.language.prompts import fill_template, get_class_names, get_templates
from florence_mm.ops.inference import WeightsSnapshot
from florence_mm.utils.progress import ProgressLog

_TEXTS = 20_000  # whose features are held at a time: 40 MB of 512 channels
_AT_ONCE = {'cpu': 256}  # texts encoded together, whose keys and values stay in the caches of a CPU
_AT_ONCE_ELSEWHERE = 2048
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class ClassFeatures:
    """Text features of classes with prompt ensembling, and their cache.

    As in the public UniCL code (``UniCL/model/model.py``), the feature of a class is the mean of the normalised
    features of its prompts, normalised again.

    Args:
        names: class names, or the name of a data set of :mod:`florence_mm.language.prompts`.
        templates: strings with one ``{}``, or ``'imagenet'``, ``'simple'``, ``'none'``.
        dtype: type that the weights of the encoder are converted to; None: they are not.
        texts_at_once: most texts encoded together; None: as many as suit the device.

    Raises:
        ValueError: no names, unusable templates, or a ``dtype`` that no tower computes in.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        templates: str | Sequence[str] = 'imagenet',
        dtype: torch.dtype | None = None,
        texts_at_once: int | None = None,
    ) -> None:
        self.names = get_class_names(names) if isinstance(names, str) else list(names)
        self.templates = get_templates(templates)
        self.dtype = dtype
        self.texts_at_once = texts_at_once
        self._features: Tensor | None = None
        self._snapshot: WeightsSnapshot | None = None
        if not self.names:
            raise ValueError('no class names were given; zero-shot prediction needs at least one')
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(
                f'dtype={dtype!r} of class features is none of {", ".join(map(str, _DTYPES))}; give torch.bfloat16 or '
                'leave it out'
            )
        twice = [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]
        if twice and not isinstance(names, str):  # ImageNet has two kinds of sunglasses
            print_log(
                f'class names {twice[:5]} occur more than once; prediction cannot tell such classes apart',
                'current',
                logging.WARNING,
            )

    def drop(self) -> None:
        """Clear the cache."""
        self._features = None

    @torch.no_grad()
    def get(self, encode: Callable[[list[str]], Tensor], parameters: Iterable[Tensor]) -> Tensor:
        """Return the features, from the cache if no parameter changed.

        Args:
            encode: function from a list of n texts to ``(n, D)``, L2-normalised.
            parameters: all parameters that ``encode`` uses.

        Returns:
            ``(K, D)``, L2-normalised.
        """
        parameters = list(parameters)
        if self._features is None or not self._snapshot.matches(parameters):
            at_once = self.texts_at_once or _AT_ONCE.get(parameters[0].device.type, _AT_ONCE_ELSEWHERE)
            step = max(1, _TEXTS // len(self.templates))
            progress = ProgressLog('encoding class names', len(self.names))
            parts = []
            for i in range(0, len(self.names), step):
                names = self.names[i : i + step]
                told = partial(_tell, progress, i, len(names))
                parts.append(self._encode(encode, names, at_once, told))
            self._features, self._snapshot = torch.cat(parts), WeightsSnapshot(parameters)
        return self._features

    def _encode(
        self, encode: Callable[[list[str]], Tensor], names: list[str], at_once: int, done: Callable[[float], None]
    ) -> Tensor:
        texts = [fill_template(template, name) for name in names for template in self.templates]
        # sorted, texts with equal beginnings are encoded together, and a text tower computes those once
        different = sorted(set(texts))
        parts = []
        for i in range(0, len(different), at_once):
            parts.append(encode(different[i : i + at_once]))
            done(min(1.0, (i + at_once) / len(different)))
        number = {text: i for i, text in enumerate(different)}
        order = torch.tensor([number[text] for text in texts], device=parts[0].device)
        features = torch.cat(parts).index_select(0, order).unflatten(0, (len(names), -1))  # (K, P, D)
        return F.normalize(features.mean(1), dim=-1)


def _tell(progress: ProgressLog, before: int, count: int, fraction: float) -> None:
    progress.update(before + fraction * count)
