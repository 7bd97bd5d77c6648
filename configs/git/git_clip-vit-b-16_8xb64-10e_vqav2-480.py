# VQAv2 by writing, no list of answers: GIT_BASE_VQAv2. The question is a beginning that is not predicted. Pictures are
# squares of 480 pixels; the public test keeps their shape, 480 to 640
_base_ = [
    '../_base_/models/git_clip-vit-b-16.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/git_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 480)
model = dict(
    image_encoder=dict(img_size=480),
    # of the name in the pretraining, whose output layer it goes on with
    heads=dict(
        caption=dict(
            _delete_=True,
            type='florence_mm.FusionWrittenAnswerHead',
            tied=True,
            transform=False,
            num_beams=4,
            length_penalty=0.6,
            max_length=10,
            label_smoothing=0.1,
            smoothing_over='others',
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/git_clip-vit-b-16_64xb64-2e_coco-vg-cc3m-sbu/epoch_2.pth',
    ),
)
# the annotators' own words are learned
train_sets = [{**part, 'answer_file': '', 'drop_unknown': False} for part in _base_.train_dataloader.dataset.datasets]
train_dataloader = dict(batch_size=64, dataset=dict(datasets=train_sets))
val_dataloader = dict(dataset=dict(answer_file=''))
test_dataloader = dict(dataset=dict(answer_file=''))
