# Do texts reach the picture better as tokens before them or by cross-attention, with much and with little data? As many
# steps with a tenth of the scenes, ten times as often
CONFIG = 'configs/git/git_coswin-micro_caption_2xb16-4e_large-digits.py'
_one = {'train_dataloader.batch_size': 32}  # one process instead of two
_tenth = {
    **_one,
    'train_dataloader.dataset.indices': 400,
    'train_cfg.max_epochs': 40,
    'train_cfg.val_interval': 40,
    'param_scheduler.CosineAnnealingLR.end': 40,
}
title = 'Captions of the embedded scenes by GIT'
metrics = {'caption/CIDEr-D': 'CIDEr-D', 'exchanged/caption/CIDEr-D': 'with exchanged pictures'}
ways = {
    'prefix, all scenes': dict(config=CONFIG, options=_one),
    'cross-attention, all scenes': dict(config=CONFIG, options={**_one, 'model.cross_attention': True}),
    'prefix, a tenth': dict(config=CONFIG, options=_tenth),
    'cross-attention, a tenth': dict(config=CONFIG, options={**_tenth, 'model.cross_attention': True}),
}
