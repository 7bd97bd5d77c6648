# Florence-2-large: DaViT-L, and BART of 12 + 12 layers, 1,024 wide
_base_ = './florence2-base.py'
model = dict(
    image_encoder=dict(arch='large'),
    text=dict(hidden_size=1024, num_layers=12, num_heads=16),
)
