# SimVLM-large: ResNet-152, 24 layers, 1,024 wide
_base_ = './simvlm-base.py'
model = dict(image_encoder=dict(depth=152), text=dict(hidden_size=1024, num_layers=24, num_heads=16))
