# A language model learns the embedded captions without their pictures, before BLIP-2's second stage freezes it:
# python tools/train.py configs/blip2/opt-micro_1xb64-6e_large-digits.py
_base_ = [
    '../_base_/models/opt-micro.py',
    '../_base_/datasets/large_digit_texts.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='florence_mm.LanguageModeling',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    language_model={{_base_.language_model}},
    tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=4096),
    max_text_len=72,
)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('language_model',)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.5, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6)
val_cfg = test_cfg = None
