"""Sizes of the presets of CoSwin, for images and clips, and of DaViT."""

from collections.abc import Mapping, Sequence
from typing import Any

from florence_mm.utils.nearest import did_you_mean

# Tiny to large have Swin's sizes, as the paper gives none. Huge is inferred, not published: it matches the paper's 637M
# parameters and the operation counts reported for X-CLIP's X-Florence (docs/coswin.md). Micro is ours, for tests and
# small images.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    'micro': {'embed_dims': 32, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'patch_size': 2, 'window_size': 4},
    'tiny': {'embed_dims': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24]},
    'small': {'embed_dims': 96, 'depths': [2, 2, 18, 2], 'num_heads': [3, 6, 12, 24]},
    'base': {'embed_dims': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32]},
    'large': {'embed_dims': 192, 'depths': [2, 2, 18, 2], 'num_heads': [6, 12, 24, 48]},
    'huge': {'embed_dims': 256, 'depths': [2, 2, 24, 6], 'num_heads': [8, 16, 32, 64]},
}
# Tiny, small and base have the sizes of DaViT (arXiv 2204.03645). Large is the tower of Florence-2-large, huge in the
# code of DaViT. Micro is ours, for tests and small images.
DAVIT_ARCHITECTURES: dict[str, dict[str, Any]] = {
    'micro': {
        'embed_dims': [32, 64, 128],
        'depths': [1, 1, 1],
        'num_heads': [1, 2, 4],
        'patch_size': 2,
        'window_size': 4,
    },
    'tiny': {'embed_dims': [96, 192, 384, 768], 'depths': [1, 1, 3, 1], 'num_heads': [3, 6, 12, 24]},
    'small': {'embed_dims': [96, 192, 384, 768], 'depths': [1, 1, 9, 1], 'num_heads': [3, 6, 12, 24]},
    'base': {'embed_dims': [128, 256, 512, 1024], 'depths': [1, 1, 9, 1], 'num_heads': [4, 8, 16, 32]},
    'large': {'embed_dims': [256, 512, 1024, 2048], 'depths': [1, 1, 9, 1], 'num_heads': [8, 16, 32, 64]},
}
_REQUIRED = ('embed_dims', 'depths', 'num_heads')
_OPTIONAL = ('patch_size', 'window_size', 'mlp_ratio')


def resolve_arch(
    arch: str | dict,
    presets: Mapping[str, dict[str, Any]] = ARCHITECTURES,
    optional: Sequence[str] = _OPTIONAL,
) -> dict[str, Any]:
    """Look up the sizes of a preset by its name, or check the keys of a dict of sizes.

    Args:
        arch: name of a preset, or sizes.
        presets: sizes by name.
        optional: keys that sizes may have beside ``embed_dims``, ``depths`` and ``num_heads``.

    Raises:
        ValueError: the preset or a key is unknown, a key is missing, or lists differ in length.
    """
    if isinstance(arch, str):
        if arch not in presets:
            raise ValueError(f'arch {arch!r} is none of {", ".join(presets)}{did_you_mean(arch, presets)}')
        return dict(presets[arch])
    known = (*_REQUIRED, *optional)
    for key in arch:
        if key not in known:
            raise ValueError(f'arch has an unknown key {key!r}, known are {", ".join(known)}{did_you_mean(key, known)}')
    missing = [key for key in _REQUIRED if key not in arch]
    if missing:
        raise ValueError(f'arch lacks {", ".join(missing)}; give embed_dims, depths and num_heads')
    lists = [key for key in known if isinstance(arch.get(key), list | tuple)]
    if wrong := next((key for key in lists if len(arch[key]) != len(arch['depths'])), None):
        raise ValueError(
            f'arch has {len(arch["depths"])} depths but {len(arch[wrong])} {wrong}; give one of each a stage'
        )
    return dict(arch)


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of stochastic depth, of each block of each stage: rising linearly from 0 at the first to ``last``.

    >>> drop_path_rates(0.5, [1, 2])
    [[0.0], [0.25, 0.5]]
    """
    total = sum(depths)
    rates = iter([last * i / max(total - 1, 1) for i in range(total)])
    return [[next(rates) for _ in range(depth)] for depth in depths]
