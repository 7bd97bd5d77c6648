# fsdp2.py for detectors with Dynamic Head; pictures of many sizes, so nothing is compiled. A zero-shot detector's text
# tower is gathered a block at a time with 'TextBlock' in addition
_base_ = './fsdp2.py'
parallelize = dict(blocks=['WindowBlock', 'DyHeadBlock'], compile=False)
