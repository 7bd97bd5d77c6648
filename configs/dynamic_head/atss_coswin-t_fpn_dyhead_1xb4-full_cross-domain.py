# Fine-tuning on all pictures of a cross-domain set: DETECTION_SET=pothole python tools/train.py CONFIG
_base_ = [
    '../_base_/models/atss_coswin-t_fpn_dyhead.py',
    '../_base_/datasets/cross_domain_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]

# classes of the sets without the group that exports list first; where yours differ, a run stops and says both numbers
num_classes = dict(
    aquarium=7, bccd=3, chess_pieces=12, mask_wearing=2, oxford_pets=37, packages=1, pistols=1, pklot=2, pothole=1,
    thermal=2, wildfire_smoke=1,
)  # fmt: skip
load_from = 'work_dirs/atss_coswin-t_fpn_dyhead_8xb4-ms-2x_coco/epoch_24.pth'
model = dict(bbox_head=dict(num_classes=num_classes.get('{{$DETECTION_SET:aquarium}}', 1)))
# batches of 4 instead of 32
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='bbox/AP'))
