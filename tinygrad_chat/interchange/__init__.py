"""Import models from other programs, and export models to them.

opening.py             open any model: of a run, a Hugging Face folder, a GGUF file, a name on the hub
importing.py           create a run from another program's model
huggingface.py         open a Hugging Face folder
huggingface_files.py   read its JSON and its safetensors files, sharded or not
huggingface_export.py  write such a folder
hub.py                 download a model's folder from the hub by its name
gguf.py                read and check a GGUF file
gguf_blocks.py         convert GGUF's quantised blocks to floats and back
gguf_model.py          open a GGUF file as a model
gguf_writing.py        write a GGUF file
gguf_export.py         export a model as such a file
foreign.py             build a model from the parts of another program's files
chats.py               its chat template
sampling.py            its default sampling settings
families.py            the known model families: names of weights, and which family a model belongs to
family.py              the Family class: convert settings and weights, both ways
family_configs.py      the settings of each family, as in its config.json
rope.py                the settings of rotary positions, as in config.json
packaged.py            models shipped in Python packages, by name
description.py         describe a model: sizes, memory, which programs can open it
exporting.py           what all exports share: tokenizer, chat template, end tokens
nanochat.py            map karpathy/nanochat's names and settings to ours
nanochat_files.py      import and export its weights as files
"""
