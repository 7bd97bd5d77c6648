"""torchvision's Swin, whose ``features`` are in turn the stem, a stage, a patch merging, a stage ...

Source of the layout: torchvision ``models/swin_transformer.py``. It gives the features of ``CoSwin(conv_embed=False)``
if no map is smaller than the window.
"""

from typing import Any

from .exporting import Exported, register_export
from .renaming import Names, Skipped, StateDict, any_key, register_format, rename
from .swin import OPTIONAL_PARTS, convert_swin, is_swin, position_indices, small_maps, take_swin

_NAME = 'torchvision Swin'
_NAMES = Names(
    ('^features.0.0.', '^patch_embed.proj.'),
    ('^features.0.2.', '^patch_embed.norm.'),
    ('.mlp.0.', '.mlp.fc1.'),
    ('.mlp.3.', '.mlp.fc2.'),
)


@register_format(
    _NAME,
    lambda k: (
        any_key(k, r'^(backbone\.)?features\.\d+\.\d+\.attn\.relative_position_bias_table$')
        # Swin V2, and Swin 3D, whose stem is no part of the features
        and not any_key(k, r'\.cpb_mlp\.|^(backbone\.)?features\.0\.\d+\.attn\.')
    ),
    optional_parts=OPTIONAL_PARTS,
)
def convert_torchvision_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert torchvision's layout."""
    state = _NAMES.to_ours(rename(state, [(r'^backbone\.', '')]))
    state = rename(
        state,
        [
            (r'^features\.(\d+)\.(reduction|norm)\.', lambda m: f'layers.{int(m[1]) // 2 - 1}.downsample.{m[2]}.'),
            (r'^features\.(\d+)\.(\d+)\.', lambda m: f'layers.{int(m[1]) // 2}.blocks.{m[2]}.'),
        ],
    )
    return convert_swin(state)


@register_export(_NAME, is_swin, settings=[small_maps(False)])
def export_torchvision_swin(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write torchvision's layout, with its buffers, which are flat."""
    state, left_out = take_swin(state, 'torchvision')
    state |= {key: index.flatten() for key, index in position_indices(state).items()}
    state = rename(
        state,
        [
            (r'^layers\.(\d+)\.downsample\.', lambda m: f'features.{2 * int(m[1]) + 2}.'),
            (r'^layers\.(\d+)\.blocks\.', lambda m: f'features.{2 * int(m[1]) + 1}.'),
        ],
    )
    return Exported(_NAMES.to_theirs(state), left_out, {'head.weight': 'made anew', 'head.bias': 'made anew'})
