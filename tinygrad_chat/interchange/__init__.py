"""Models from and for other programs.

nanochat.py        karpathy/nanochat's names and settings beside ours
nanochat_files.py  its weights as files, in and out
"""
