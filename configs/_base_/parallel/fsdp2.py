# For models that outgrow one GPU (docs/scaling.md): weights, gradients and moments are split over all processes
# (FSDP2), a block is gathered in bf16 at a time, and each kind of block is compiled. With one process nothing is split;
# --smoke leaves all of it out. Many processes write checkpoints faster with parallelize.sharded_checkpoints=True
parallelize = dict(blocks=['WindowBlock', 'TextBlock'], shard=True, compile=True, param_dtype='bfloat16')
