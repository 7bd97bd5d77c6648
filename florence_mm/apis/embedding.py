"""Features of prepared inputs, and the fingerprint of the model that they are of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from florence_mm.models.protocol import embed_images

from .setup import wrong_kind

_FINITE = 'the model gives features that are not finite numbers; check its weights'


@torch.no_grad()
def embed_packed(model: nn.Module, cfg: Config, packed: Mapping[str, Any]) -> np.ndarray:
    """Embed a batch of prepared images or videos.

    Args:
        model: the model.
        cfg: its config, for the message.
        packed: the batch, as the model's data preprocessor takes it.

    Returns:
        ``(B, D)`` float32, L2-normalised.

    Raises:
        UsageError: the model gives no features.
        ValueError: they are not finite.
    """
    features = embed_images(model, model.data_preprocessor(packed, False)['inputs'])
    if features is None:
        raise wrong_kind(cfg, model, 'a model with features, such as UniCL or a classifier of mmpretrain')
    if not torch.isfinite(features).all():
        raise ValueError(_FINITE)
    return features.float().cpu().numpy()


@torch.no_grad()
def embed_texts(model: nn.Module, texts: Sequence[str]) -> np.ndarray:
    """Embed texts with a two-tower model; returns ``(B, D)`` float32, L2-normalised.

    Raises:
        ValueError: features are not finite.
    """
    features = model.extract_text_feat(list(texts))
    if not torch.isfinite(features).all():
        raise ValueError(_FINITE)
    return features.float().cpu().numpy()


def fingerprint(model: nn.Module, cfg: Config, pipeline: Sequence[Mapping[str, Any]]) -> str:
    """Digest of all tensors and settings of a model and of the steps that prepare its inputs, 32 hexadecimal digits.

    Args:
        model: the model.
        cfg: its config; where its first weights come from does not count.
        pipeline: configs of the transforms.
    """
    digest = hashlib.blake2b(digest_size=16)
    settings = [_deciding(cfg.get('model')), _deciding(cfg.get('data_preprocessor')), _deciding(list(pipeline))]
    digest.update(json.dumps(settings, sort_keys=True, default=_named).encode())
    # with the mean and standard deviation of images, which are in no checkpoint
    for name, tensor in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        # bytes, as numpy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _deciding(node: Any) -> Any:
    """Leave out of a config what changes no output once all weights are loaded."""
    if isinstance(node, Mapping):
        return {str(key): _deciding(value) for key, value in node.items() if key not in ('init_cfg', 'pretrained')}
    return [_deciding(value) for value in node] if isinstance(node, (list, tuple)) else node


def _named(value: Any) -> str:
    """Write a value that JSON does not know, the same in every process."""
    return getattr(value, '__qualname__', None) or str(value)
