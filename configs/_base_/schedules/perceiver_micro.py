# small batches and weights drawn anew: Muon for matrices, as in the other small models
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='florence_mm.MuonAdamW', lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True, ns_steps=4),
    paramwise_cfg=dict(orthogonal=('encoder', 'cross_attend')),
    clip_grad=dict(max_norm=1.0),
)
val_cfg = dict()
test_cfg = dict()
