"""Sizes of CoSwin's presets, for images and clips."""

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
_REQUIRED = ('embed_dims', 'depths', 'num_heads')
_OPTIONAL = ('patch_size', 'window_size', 'mlp_ratio')


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """Look up the sizes of a preset by its name, or check the keys of a dict of sizes.

    Raises:
        ValueError: the preset or a key is unknown, a key is missing, or lists differ in length.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            known = ', '.join(ARCHITECTURES)
            raise ValueError(f'arch {arch!r} is none of {known}{did_you_mean(arch, ARCHITECTURES)}')
        return dict(ARCHITECTURES[arch])
    known = _REQUIRED + _OPTIONAL
    for key in arch:
        if key not in known:
            raise ValueError(f'arch has an unknown key {key!r}, known are {", ".join(known)}{did_you_mean(key, known)}')
    missing = [key for key in _REQUIRED if key not in arch]
    if missing:
        raise ValueError(f'arch lacks {", ".join(missing)}; give embed_dims, depths and num_heads')
    if len(arch['depths']) != len(arch['num_heads']):
        raise ValueError(
            f'arch has {len(arch["depths"])} depths but {len(arch["num_heads"])} num_heads; give one of each a stage'
        )
    return dict(arch)
