# What every run shares: hooks, logging, environment, seed
default_scope = 'florence_mm'
default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    invalid_loss=dict(type='florence_mm.InvalidLossHook', patience=3),
    class_names=dict(type='florence_mm.ClassNamesHook', templates='imagenet'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='florence_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    run_summary=dict(type='florence_mm.RunSummaryHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo where there is no GPU
)
# None: drawn when the run starts, stored with its checkpoints, restored when it resumes
randomness = dict(seed=None)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(window_size=10)
log_level = 'INFO'
load_from = None
resume = False
