# Florence-2-large on the same mixture
_base_ = './florence2-base_8xb16-10e_tasks-768.py'

model = dict(
    image_encoder=dict(arch='large'),
    text=dict(hidden_size=1024, num_layers=12, num_heads=16),
    init_cfg=dict(checkpoint='data/florence-2-large/pytorch_model.bin'),
)
