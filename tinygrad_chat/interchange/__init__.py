"""Models from and for other programs.

opening.py             any model, opened: of a run, a Hugging Face folder, a GGUF file, a name on the hub
importing.py           a run of ours from such a model
huggingface.py         a Hugging Face folder as a model of ours
huggingface_files.py   its JSON and its safetensors files, sharded too
huggingface_export.py  a model of ours as such a folder
hub.py                 a model's folder by its name on the hub
gguf.py                what a GGUF file holds, checked
gguf_blocks.py         numbers of a few bits each, as floats
gguf_model.py          a GGUF file as a model of ours
gguf_writing.py        a GGUF file, written
gguf_export.py         a model of ours as such a file
foreign.py             another program's model, of what its files hold
chats.py               its chat template
sampling.py            how its tokens are drawn, by default
families.py            the families of models that are known: names of weights, and which one a model belongs to
family.py              what a family is: settings and weights, both ways
family_configs.py      the settings of each, as its config.json states them
rope.py                rotary positions, as it states them
packaged.py            models that packages bring, by name
description.py         what a model is: sizes, memory, which programs can open it
exporting.py           what every program is told of a model of ours
nanochat.py            karpathy/nanochat's names and settings beside ours
nanochat_files.py      its weights as files, in and out
"""
