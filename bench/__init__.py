"""Measurements against peers, and of quality. `python -m bench` lists them; results/ holds the JSON that claims cite.

step.py            tokens per second of a whole training step, ours and PyTorch's in turn
quality.py         validation losses of known configurations
configurations.py  the models that are measured
worker.py          one engine in a process of its own, told what to run by step.py
peers/             the same model in other frameworks
record.py          how a result is written
"""
