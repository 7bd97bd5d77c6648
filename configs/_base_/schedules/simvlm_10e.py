# SimVLM's fine-tuning: AdamW with one of 1e-5, 2e-5 and 5e-5. Epochs, batch and warm-up are not stated: METER's
_base_ = './meter_10e.py'
optim_wrapper = dict(
    optimizer=dict(lr=2e-5, betas=(0.9, 0.999)),
    paramwise_cfg=dict(_delete_=True),
)
