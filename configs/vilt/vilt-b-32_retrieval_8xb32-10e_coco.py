# Retrieval on COCO: each caption among 15 false ones, which the score of matching puts in order
_base_ = [
    '../_base_/models/vilt-b-32.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/vilt_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import replace_step

model = dict(
    max_patches=None,
    heads=dict(ranking=dict(type='florence_mm.FusionRankingHead')),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/vilt-b-32_64xb64-200k_coco-vg-cc-sbu/iter_200000.pth',
    ),
)
replace_step(_base_.train_dataloader.dataset.pipeline, 'Resize', dict(type='florence_mm.ResizeWithin'))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.WithFalseSamples',
        image=False,
        texts=15,
        dataset=_base_.train_dataloader.dataset,
    )
)
# a test would match each of 5,000 pictures with each of 25,000 captions; the rank of the true text is logged
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
smoke = {'train_dataloader.dataset.texts': 1}  # of four generated pairs
