"""tinygrad_chat: a from-scratch array engine that trains small GPTs and samples from them.

The public names below load on first use, so that `import tinygrad_chat` and `tgc --help` stay fast. Importing the
package never imports CuPy; a GPU is used on request, as with `Compute.choose("cupy")`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers treat it as true; importing `typing` would delay the Ctrl-C handler
__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from tinygrad_chat.api import evaluate, load, load_tokenizer, train
    from tinygrad_chat.autograd import Value, differentiable, no_grad
    from tinygrad_chat.backend import Compute
    from tinygrad_chat.inference.text_model import TextModel
    from tinygrad_chat.models.base import NextTokenModel
    from tinygrad_chat.models.gpt import GPT
    from tinygrad_chat.models.options import ModelOptions
    from tinygrad_chat.tensor import Tensor
    from tinygrad_chat.text.dataset import Dataset

_HOME = {
    "Compute": "backend",
    "Dataset": "text.dataset",
    "GPT": "models.gpt",
    "ModelOptions": "models.options",
    "NextTokenModel": "models.base",
    "Tensor": "tensor",
    "TextModel": "inference.text_model",
    "Value": "autograd",
    "differentiable": "autograd",
    "evaluate": "api",
    "load": "api",
    "load_tokenizer": "api",
    "no_grad": "autograd",
    "train": "api",
}

__all__ = [
    "GPT",
    "Compute",
    "Dataset",
    "ModelOptions",
    "NextTokenModel",
    "Tensor",
    "TextModel",
    "Value",
    "differentiable",
    "evaluate",
    "load",
    "load_tokenizer",
    "no_grad",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tinygrad_chat' has no attribute {name!r}")
    import importlib

    if name == "Value":
        importlib.import_module("tinygrad_chat.drawing")  # lets a notebook show a Value's graph
    return getattr(importlib.import_module(f"tinygrad_chat.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
