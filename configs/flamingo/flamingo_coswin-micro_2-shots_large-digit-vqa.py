# Questions about the embedded scenes, asked of Flamingo behind two pictures with a question and its answer. It has
# learned captions, and nothing is trained:
# python tools/test.py configs/flamingo/flamingo_coswin-micro_2-shots_large-digit-vqa.py \
#     work_dirs/flamingo_coswin-micro_1xb32-6e_large-digits/epoch_6.pth
_base_ = [
    '../_base_/models/flamingo_coswin-micro.py',
    '../_base_/datasets/large_digit_questions.py',
    '../_base_/default_runtime.py',
]

model = dict(heads=dict(caption=dict(type='florence_mm.DocumentHead', max_length=4)))
# other questions for each, about other pictures
support = {
    **_base_.test_dataloader.dataset,
    'question_file': 'data/large_digit_questions/train_questions.json',
    'ann_file': 'data/large_digit_questions/train_annotations.json',
    'data_prefix': 'data/large_digits/train',
}
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.FewShotDataset',
        dataset={{_base_.test_dataloader.dataset}},
        support=support,
        shots=2,
        task='answer',
    )
)
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict(type='florence_mm.ControlledTestLoop')
smoke = dict(optim_wrapper=None)
load_from = 'work_dirs/flamingo_coswin-micro_1xb32-6e_large-digits/epoch_6.pth'
