"""Text features of a set of classes, cached until the weights change.

Shape legend: ``K`` classes, ``P`` templates, ``D`` channels.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from florence_mm.language.prompts import fill_template, get_class_names, get_templates
from florence_mm.ops.inference import WeightsSnapshot
from florence_mm.utils.progress import ProgressLog


class ClassFeatures:
    """Text features of classes with prompt ensembling, and their cache.

    As in the public UniCL code (``UniCL/model/model.py``), the feature of a class is the mean of the normalised
    features of its prompts, normalised again.

    Args:
        names: class names, or the name of a data set of :mod:`florence_mm.language.prompts`.
        templates: strings with one ``{}``, or ``'imagenet'``, ``'simple'``, ``'none'``.
        texts_at_once: most texts encoded together; the prompts of one class are never split.

    Raises:
        ValueError: no names, or unusable templates.
    """

    def __init__(
        self, names: str | Sequence[str], templates: str | Sequence[str] = 'imagenet', texts_at_once: int = 512
    ) -> None:
        self.names = get_class_names(names) if isinstance(names, str) else list(names)
        self.templates = get_templates(templates)
        self.texts_at_once = texts_at_once
        self._features: Tensor | None = None
        self._snapshot: WeightsSnapshot | None = None
        if not self.names:
            raise ValueError('no class names were given; zero-shot prediction needs at least one')
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
            step = max(1, self.texts_at_once // len(self.templates))
            progress = ProgressLog('encoding class names', len(self.names))
            parts = []
            for i in range(0, len(self.names), step):
                parts.append(self._encode(encode, self.names[i : i + step]))
                progress.update(i + step)
            self._features, self._snapshot = torch.cat(parts), WeightsSnapshot(parameters)
        return self._features

    def _encode(self, encode: Callable[[list[str]], Tensor], names: list[str]) -> Tensor:
        texts = [fill_template(template, name) for name in names for template in self.templates]
        features = encode(texts).unflatten(0, (len(names), -1))  # (K, P, D)
        return F.normalize(features.mean(1), dim=-1)
