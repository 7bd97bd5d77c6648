# SimVLM-huge: ResNet-152 with 1,280 channels in its third stage, 32 layers, 1,280 wide, recomputed in the backward pass
_base_ = './simvlm-base.py'
model = dict(
    image_encoder=dict(depth=152, base_channels=80),
    text=dict(hidden_size=1280, num_layers=32, num_heads=16, with_cp=True),
)
