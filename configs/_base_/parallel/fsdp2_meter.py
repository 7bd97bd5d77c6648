# fsdp2.py for METER with RoBERTa. Layers of the fusion are gathered with the rest, as other methods of theirs than
# forward are called; compiling is left out, since texts of each length would be compiled
_base_ = './fsdp2.py'
parallelize = dict(blocks=['WindowBlock', 'RobertaLayer'], compile=False)
