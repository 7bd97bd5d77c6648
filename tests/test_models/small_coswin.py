"""Small backbones of CoSwin's family, for images and clips."""

from instances import Small
from kinds import Backbone

# maps of 16 x 20, 8 x 10 and 4 x 5 tokens: windows that fit, that do not, and that shrink
ARCH = {'embed_dims': 8, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'patch_size': 2, 'window_size': 5}
COSWIN = {'type': 'CoSwin', 'arch': ARCH, 'img_size': 32, 'out_indices': (0, 1, 2)}
VIDEO = {'type': 'VideoCoSwin', 'arch': {**ARCH, 'depths': [2, 2], 'num_heads': [1, 2]}, 'out_indices': (0, 1)}
PROTOCOLS = ('StagedBackbone', 'NamesNoDecay')
IMAGES, CLIPS = Backbone((3, 32, 40)), Backbone((3, 5, 32, 36))

SMALL = {
    'CoSwin': Small(COSWIN, IMAGES, PROTOCOLS),
    'CoSwin-swin': Small({**COSWIN, 'conv_embed': False, 'use_abs_pos_embed': True}, IMAGES, PROTOCOLS),
    'CoSwin-detector': Small({**COSWIN, 'pad_small_map': True, 'layer_scale_init_value': 0.5}, IMAGES, PROTOCOLS),
    'VideoCoSwin': Small({**VIDEO, 'merge_temporal_kernel': 3}, CLIPS, PROTOCOLS),
    'VideoCoSwin-swin': Small({**VIDEO, 'conv_embed': False}, CLIPS, PROTOCOLS),
}
