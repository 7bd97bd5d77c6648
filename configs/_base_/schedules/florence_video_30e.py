# Florence, section 3.9: 30 epochs, learning rate 2e-4. Not stated: the optimizer, its decay, the batch, warm-up and
# decline of the rate, which are Video Swin's here (the decay that of its larger models)
_base_ = './video_swin_30e.py'

optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=None,
)
