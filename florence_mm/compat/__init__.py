"""Patches for gaps in today's OpenMMLab packages; the only folder that changes other packages' modules.

One file per gap. Each gap has a feature test, so its patch is no longer applied once the package is fixed.
"""

from . import (
    checkpoint_globals,
    concat_metainfo,
    config_mark,
    config_text,
    cpu_data_parallel,
    cpu_mixed_precision,
    cpu_process_group,
    mmaction_drn,
    mmaction_tuples,
    mmcv_ext,
    mmdet_flickr,
    multimodal_imports,
    numpy_names,
    package_paths,
    package_table,
    process_group_exit,
    torchvision_schemas,
)
from .gap import Gap

GAPS: list[Gap] = [
    torchvision_schemas.GAP,
    mmcv_ext.GAP,
    mmaction_drn.GAP,
    mmaction_tuples.GAP,
    *multimodal_imports.GAPS,
    checkpoint_globals.GAP,
    package_paths.GAP,
    package_table.GAP,
    config_mark.GAP,
    config_text.GAP,
    cpu_process_group.GAP,
    process_group_exit.GAP,
    cpu_data_parallel.GAP,
    cpu_mixed_precision.GAP,
    *numpy_names.GAPS,
    mmdet_flickr.GAP,
    concat_metainfo.GAP,
]


def install(operators: str | None = None) -> None:
    """Apply every patch that the installed packages need; repeated calls change nothing.

    Args:
        operators: name of the module whose functions replace the compiled operators of mmcv; it is imported when one
            of them is first called. None: calling these operators raises an error.
    """
    if operators is not None:
        mmcv_ext.set_operators(operators)
    for gap in GAPS:
        gap.install()
