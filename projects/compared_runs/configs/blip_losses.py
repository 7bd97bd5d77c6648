# What each of BLIP's three losses does for captions
CONFIG = 'configs/blip/blip_coswin-micro_2xb32-12e_large-digits.py'
_one = {'train_dataloader.batch_size': 64}  # one process instead of two
title = 'Captions of the embedded scenes by BLIP'
metrics = {'caption/CIDEr-D': 'CIDEr-D', 'exchanged/caption/CIDEr-D': 'with exchanged pictures'}
ways = {
    'all three losses': dict(config=CONFIG, options=_one),
    'without matching': dict(config=CONFIG, options=_one, without=['model.heads.itm']),
    'captions alone': dict(config=CONFIG, options=_one, without=['model.heads.itm', 'model.heads.itc']),
}
