# METER-CoSwin-H: 878M parameters before the heads. Batches of 32 at 384 pixels keep all activations: 54 GiB, and what
# image-text matching fuses a second time (tools/analysis_tools/get_memory.py)
_base_ = './meter_coswin-t.py'

model = dict(image_encoder=dict(arch='huge'))
