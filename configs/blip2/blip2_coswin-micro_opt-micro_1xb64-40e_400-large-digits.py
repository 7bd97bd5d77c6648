# Second stage on 400 pictures, a tenth of those of the first, for as many iterations as on all:
# python tools/train.py configs/blip2/blip2_coswin-micro_opt-micro_1xb64-40e_400-large-digits.py
# Without the first stage: --cfg-options model.init_cfg=None
_base_ = './blip2_coswin-micro_opt-micro_1xb64-4e_large-digits.py'

train_dataloader = dict(dataset=dict(indices=400))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=5, end=40, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=40)
