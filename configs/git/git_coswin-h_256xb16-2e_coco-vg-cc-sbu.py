# GIT as in the paper, with Florence's image encoder. Its 0.8 billion pairs are not public: the 14 million pictures with
# 20 million captions of Florence's fusion pretraining take their place, at its 384 pixels
_base_ = [
    '../_base_/models/git_coswin-h.py',
    '../_base_/datasets/meter_pretrain.py',
    '../_base_/schedules/git_2e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
            prefix='image_encoder.',
        )
    )
)
train_dataloader = dict(batch_size=16)
