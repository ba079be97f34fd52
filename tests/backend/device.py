"""A back end that stands in for a GPU: its arrays refuse to meet NumPy's, as CuPy's do."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import Backend


class DeviceArray(np.ndarray):
    """An array in memory that NumPy cannot see."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        _refuse_host(ufunc.__name__, inputs)
        out = options.pop("out", None)
        plain = {"out": tuple(x.view(np.ndarray) for x in out)} if out else {}
        result = getattr(ufunc, method)(*map(_plain, inputs), **options, **plain)
        return None if method == "at" else out[0] if out else _wrapped(result)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        _refuse_host(function.__name__, [*inputs, *options.values()])
        return _wrapped(function(*map(_plain, inputs), **{name: _plain(x) for name, x in options.items()}))

    def __getitem__(self, key: Any) -> Any:
        _refuse_host("indexing", key if isinstance(key, tuple) else (key,))
        return _wrapped(super().__getitem__(_plain(key)))

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host("indexing", [value, *(key if isinstance(key, tuple) else (key,))])
        super().__setitem__(_plain(key), value)


def _refuse_host(name: str, inputs: Any) -> None:
    for x in inputs:
        for part in x if isinstance(x, (tuple, list)) else (x,):
            if type(part) is np.ndarray:
                raise TypeError(f"{name}: an array in host memory met one on the device")


def _plain(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(map(_plain, x))
    return x.view(np.ndarray) if isinstance(x, DeviceArray) else x


def _wrapped(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(map(_wrapped, x))
    return x.view(DeviceArray) if isinstance(x, np.ndarray) else np.asarray(x).view(DeviceArray)


class _Namespace:
    """NumPy's functions; what they make lies on the device, and only `asarray` and `array` take what does not."""

    random = np.random
    newaxis = None

    def __getattr__(self, name: str) -> Any:
        original = getattr(np, name)
        if not callable(original) or isinstance(original, (type, np.ufunc)):
            return original  # a ufunc comes to __array_ufunc__ by itself

        def function(*inputs: Any, **options: Any) -> Any:
            if name not in ("asarray", "array"):
                _refuse_host(name, inputs)
            return _wrapped(original(*map(_plain, inputs), **options))

        return function


DEVICE = Backend(
    name="device",
    kernel_sets=("cuda",),
    xp=_Namespace(),
    array_type=DeviceArray,
    device="a stand-in",
    to_host=lambda array: array.view(np.ndarray),
    synchronize=lambda: None,
)
