"""Small DaViTs, the image backbone of Florence-2."""

from instances import Small
from kinds import Backbone

# maps of 16 x 20, 8 x 10 and 4 x 5 tokens: windows that fit along one axis, along none, and larger ones
ARCH = {'embed_dims': [8, 12, 16], 'depths': [1, 2, 1], 'num_heads': [1, 3, 2], 'num_groups': [2, 2, 4]}
DAVIT = {'type': 'FlorenceDaViT', 'arch': {**ARCH, 'patch_size': 2, 'window_size': 5}, 'out_indices': (0, 1, 2)}
FIRST = {'merge_kernel': 2, 'channel_scale': 'channels'}
PROTOCOLS = ('StagedBackbone', 'NamesNoDecay')
IMAGES = Backbone((3, 32, 40))

SMALL = {
    'FlorenceDaViT': Small(DAVIT, IMAGES, PROTOCOLS),
    'FlorenceDaViT-detector': Small({**DAVIT, 'out_norm': 'map'}, IMAGES, PROTOCOLS),
    'FlorenceDaViT-first': Small({**DAVIT, **FIRST}, IMAGES, PROTOCOLS),
}
