"""All gaps; importing this module applies their patches, now or after the import of the module that has the gap."""

from . import (
    checkpoint_globals,
    concat_metainfo,
    config_keys,
    config_mark,
    config_text,
    cpu_data_parallel,
    cpu_mixed_precision,
    cpu_process_group,
    late_imports,
    logged_values,
    mmaction_bfloat16,
    mmaction_drn,
    mmaction_tuples,
    mmcv_ext,
    mmdet_flickr,
    multimodal_imports,
    numpy_names,
    own_notices,
    package_paths,
    package_table,
    process_group_exit,
    torchvision_schemas,
)
from .gap import Gap

GAPS: list[Gap] = [
    *late_imports.GAPS,
    torchvision_schemas.GAP,
    mmcv_ext.GAP,
    mmaction_drn.GAP,
    mmaction_tuples.GAP,
    mmaction_bfloat16.GAP,
    *multimodal_imports.GAPS,
    checkpoint_globals.GAP,
    package_paths.GAP,
    package_table.GAP,
    config_mark.GAP,
    config_keys.GAP,
    config_text.GAP,
    cpu_process_group.GAP,
    process_group_exit.GAP,
    cpu_data_parallel.GAP,
    cpu_mixed_precision.GAP,
    *logged_values.GAPS,
    *numpy_names.GAPS,
    mmdet_flickr.GAP,
    concat_metainfo.GAP,
    *own_notices.GAPS,
]

for _gap in GAPS:
    _gap.install()
