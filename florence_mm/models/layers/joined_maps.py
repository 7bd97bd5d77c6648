"""Maps of several stages of a backbone as one map of all their channels.

Shape legend: ``U`` images, ``C_i`` channels of a map, ``H_i, W_i`` its size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def joined_channels(image_encoder: nn.Module) -> int:
    """Channels of all maps that a backbone returns.

    Raises:
        ValueError: it does not say which stages' maps it returns.
    """
    stages = getattr(image_encoder, 'feature_info', None), getattr(image_encoder, 'out_indices', None)
    if None in stages:
        raise ValueError(
            f'joined maps need a backbone with feature_info and out_indices, which {type(image_encoder).__name__} has '
            'not; give one that returns the maps of several stages, such as DaViT, or leave join_maps out'
        )
    return sum(stages[0][index]['num_chs'] for index in stages[1])


def joined_maps(maps: Sequence[Tensor]) -> Tensor:
    """Enlarge maps ``(U, C_i, H_i, W_i)`` to the size of the first; return all channels, ``(U, sum of C_i, H, W)``."""
    size = maps[0].shape[2:]
    same = (x if x.shape[2:] == size else F.interpolate(x, size=size, mode='bilinear') for x in maps)
    return torch.cat(list(same), 1)
