# fsdp2.py for classifiers of clips, which have no text tower; video retrieval takes fsdp2.py
_base_ = './fsdp2.py'
parallelize = dict(blocks=['WindowBlock'])
