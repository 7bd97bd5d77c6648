# small batches and weights drawn anew: one rate for all, far above METER's, and Muon for matrices, which learned faster
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(
        type='florence_mm.MuonAdamW', lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True, ns_steps=4, share=True
    ),
    paramwise_cfg=dict(orthogonal=('image_encoder', 'text_encoder', 'cross_modal')),
    clip_grad=dict(max_norm=1.0),
)
val_cfg = dict()
test_cfg = dict()
