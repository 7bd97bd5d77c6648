"""Small image towers of CLIP."""

from instances import Small
from kinds import Backbone

ARCH = {'embed_dims': 16, 'num_layers': 3, 'num_heads': 2, 'patch_size': 8}
TOWER = {'type': 'CLIPVisionTower', 'arch': ARCH, 'img_size': 32}
PROTOCOLS = ('NamesNoDecay',)
# 4 x 5 patches, between which positions of 4 x 4 are interpolated
IMAGES = Backbone((3, 32, 40))
RESNET = {'type': 'CLIPResNet', 'arch': {'depths': [1, 2, 1, 1], 'width': 4, 'out_dims': 6}, 'img_size': 64}

SMALL = {
    'CLIPResNet': Small(RESNET, Backbone((3, 64, 96)), PROTOCOLS),
    'CLIPResNet-maps': Small({**RESNET, 'out_type': 'featmap', 'out_indices': (1, 3)}, IMAGES, PROTOCOLS),
    'CLIPVisionTower': Small(TOWER, IMAGES, PROTOCOLS),
    'CLIPVisionTower-tokens': Small({**TOWER, 'out_type': 'raw', 'act': 'gelu', 'antialias': True}, IMAGES, PROTOCOLS),
    'CLIPVisionTower-maps': Small(
        {**TOWER, 'out_type': 'featmap', 'out_indices': (0, 2), 'layer_scale_init_value': 0.5}, IMAGES, PROTOCOLS
    ),
}
