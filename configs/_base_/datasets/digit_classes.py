# The embedded digits with their classes, for classifiers (python tools/dataset_converters/prepare_digits.py)
_base_ = './digits.py'
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='florence_mm.RandomAffineImage', max_rotate=10.0, max_translate=0.08, scale=(0.88, 1.136)),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    dataset=dict(ann_file='data/digits/train_classes.jsonl', classes='digits', pipeline=train_pipeline)
)
val_evaluator = dict(_delete_=True, type='mmpretrain.Accuracy', topk=(1,))
test_evaluator = val_evaluator
