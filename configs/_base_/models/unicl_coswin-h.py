_base_ = './unicl_coswin-t.py'

# 893M parameters (paper, section 2.3). The sizes of CoSwin-H and of the text tower are inferred: docs/coswin.md
# Batches of 48 keep all activations: 38 GiB at 224 pixels, 64 at 384 (tools/analysis_tools/get_memory.py)
model = dict(
    image_encoder=dict(arch='huge'),
    text_encoder=dict(arch='huge'),
    embed_dims=1024,
)
# under --smoke a small model: seconds and 1 GB; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])),
        text_encoder=dict(arch=dict(_delete_=True, embed_dims=128, num_layers=2, num_heads=2)),
    ),
)
