"""The two models of CapFilt: one that writes captions of pictures, and one that tells whether a text matches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from florence_mm.errors import UsageError
from florence_mm.language.spacing import join_punctuation
from florence_mm.models.multimodal.protocol import VisionLanguage, unwrap_reranker

from .embedding import fingerprint
from .zoo import init_model


class _PictureModel:
    """A vision-language model with its preparation of pictures; the base of captioner and filter.

    Attributes:
        role: what the model is in CapFilt.
        does: what it must be able to do, in words, and as the argument of ``VisionLanguage.require``.
    """

    role: str
    does: tuple[str, str]

    def __init__(
        self, model: str | Path | Config, checkpoint: str | Path | None = None, device: str | None = None
    ) -> None:
        self._loaded = init_model(model, checkpoint, device)
        name, (words, method) = self._loaded.name, self.does
        self._model = unwrap_reranker(self._loaded.model)
        if not isinstance(self._model, VisionLanguage):
            raise UsageError(f'{name} is a {type(self._model).__name__}, and no {self.role}; give a model that {words}')
        if self._loaded.pipeline is None:
            raise UsageError(f'{name} has no test_dataloader, which says how to prepare pictures')
        try:
            self._model.require(**{method: True})
        except ValueError as error:
            raise UsageError(f'{name} is no {self.role}: {error}') from None
        self.name = fingerprint(self._loaded.model, self._loaded.cfg, self._loaded.pipeline.pipeline)

    def _encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Encode pictures ``(H, W, 3)`` uint8 RGB to tokens ``(U, S, C)``."""
        packed = self._loaded.preprocess(list(images))
        return self._model.encode_image(self._model.data_preprocessor(packed, False)['inputs'])


class ModelCaptioner(_PictureModel):
    """A model that writes, as CapFilt uses it (:class:`florence_mm.curation.capfilt_texts.Captioner`).

    Args:
        model (str | Path | Config): Name of a model, its config file, or its config.
        checkpoint (str | Path | None): Its weights; None: those published for the name.
        device (str | None): Where it computes; None: the GPU if there is one.

    Attributes:
        name (str): Digest of weights, settings and preparation.

    Raises:
        UsageError: the model does not write.
    """

    role, does = 'captioner', ('writes', 'writes')

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray], seeds: Sequence[Sequence[int]], top_p: float) -> list[list[str]]:
        """Draw a caption of each picture for each of its seeds, from the nucleus of probability ``top_p``."""
        tokens = self._encode(images)
        own = [seed for several in seeds for seed in several]
        image_of = [place for place, several in enumerate(seeds) for _ in several]
        self._model.draw_texts(top_p)
        generators = [torch.Generator().manual_seed(seed) for seed in own]
        drawn = self._model.write(tokens[torch.tensor(image_of, device=tokens.device)], None, generators)
        texts: list[list[str]] = [[] for _ in seeds]
        for place, one in zip(image_of, drawn, strict=True):
            texts[place].append(join_punctuation(one.text))
        return texts


class ModelMatcher(_PictureModel):
    """A model that matches, as CapFilt filters with it (:class:`florence_mm.curation.capfilt_texts.Matcher`).

    Args:
        model (str | Path | Config): Name of a model, its config file, or its config.
        checkpoint (str | Path | None): Its weights; None: those published for the name.
        device (str | None): Where it computes; None: the GPU if there is one.

    Attributes:
        name (str): Digest of weights, settings and preparation.

    Raises:
        UsageError: the model does not match pictures and texts.
    """

    role, does = 'filter', ('matches pictures and texts', 'matches')

    @torch.no_grad()
    def __call__(
        self, images: Sequence[np.ndarray], texts: Sequence[str], pairs: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Compute the probabilities ``(P,)`` that pictures and texts match, for pairs of their indices."""
        return self._model.match(self._encode(images), texts, pairs).double().sigmoid().numpy()
