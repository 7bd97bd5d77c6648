# A small language model learns the embedded captions without their pictures, before Flamingo freezes it:
# python tools/train.py configs/flamingo/language-micro_1xb64-6e_large-digits.py
_base_ = [
    '../_base_/models/flamingo_coswin-micro.py',
    '../_base_/datasets/large_digit_texts.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='florence_mm.LanguageModeling',
    language_model=dict(type='florence_mm.StackLanguageModel', stack=_base_.model.language_model.stack),
    tokenizer=_base_.model.tokenizer,
    max_text_len=72,
)
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('language_model',)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6)
val_cfg = test_cfg = None
