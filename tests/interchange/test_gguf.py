"""GGUF files: what we write is read by others and by us, and what anybody writes is refused in one line."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_chat.errors import FormatError
from tinygrad_chat.interchange import gguf as module
from tinygrad_chat.interchange.gguf import is_gguf, read_gguf
from tinygrad_chat.interchange.gguf_writing import write_gguf

SETTINGS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(2),
    "llama.epsilon": 1e-5,
    "tokenizer.add": True,
    "tokenizer.tokens": ["a", "é", ""],
    "tokenizer.types": np.array([1, 3, 6], np.int32),
}
ARRAYS = {
    "first": np.arange(12, dtype=np.float32).reshape(3, 4),
    "second": np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32),
    "third": np.ones(5, np.float32),
}
KINDS = {"first": "F32", "second": "Q8_0", "third": "BF16"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf", SETTINGS, ARRAYS, KINDS)
    return tmp_path / "model.gguf"


def test_what_is_written_is_read(path: Path):
    assert is_gguf(path)
    assert [each.name for each in path.parent.iterdir()] == ["model.gguf"]
    found = read_gguf(path)
    assert found.metadata["tokenizer.types"].tolist() == [1, 3, 6]
    plain, expected = (
        {key: value for key, value in every.items() if key != "tokenizer.types"} for every in (found.metadata, SETTINGS)
    )
    assert plain == {**expected, "llama.epsilon": pytest.approx(1e-5)}
    for name, array in ARRAYS.items():
        assert found.tensors[name].shape == array.shape
        np.testing.assert_allclose(np.asarray(found.tensors[name]), array, atol=0.01)
    np.testing.assert_array_equal(np.asarray(found.tensors["first"]), ARRAYS["first"])


def test_gguf_reads_what_we_write(path: Path):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra peers, is not installed")
    reader = gguf.GGUFReader(path)
    assert reader.get_field("tokenizer.tokens").contents() == ["a", "é", ""]
    assert reader.get_field("llama.block_count").contents() == 2
    for tensor in reader.tensors:
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ARRAYS[tensor.name].shape)
        np.testing.assert_array_equal(found, np.asarray(read_gguf(path).tensors[tensor.name]))


def test_we_read_what_gguf_writes(tmp_path: Path):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra peers, is not installed")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_block_count(7)
    writer.add_token_list(["x", "y"])
    for name, array in ARRAYS.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "theirs.gguf")
    assert (found.metadata["llama.block_count"], found.metadata["tokenizer.ggml.tokens"]) == (7, ["x", "y"])
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.asarray(found.tensors[name]), array)


def test_a_setting_of_another_type_is_named(path: Path):
    with pytest.raises(FormatError, match=r"^model\.gguf: general\.architecture: expected int, received 'llama'$"):
        read_gguf(path).get("general.architecture", int)


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content.encode())) + content.encode()


def header(keys: bytes = b"", *tensors: bytes, version: int = 3, count: int | None = None, number: int = 0) -> bytes:
    """A file that begins with these keys, as many as `number` says, and tensors."""
    counted = len(tensors) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, counted, number) + keys + b"".join(tensors)


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def key(name: str, kind: int, content: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + content


HUGE = 1 << 62
HOSTILE = {
    "nothing": (b"", "is empty"),
    "another file": (b"GGML" + bytes(40), "expected a GGUF file"),
    "cut short": (b"GGUF\3", "more bytes of its header"),
    "an old version": (header(version=1), "expected version 2 or 3, received 1"),
    "bytes in another order": (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
    "many tensors": (header(count=HUGE), "expected at most 65,536 tensors"),
    "many keys": (header(number=HUGE), "expected at most 4,096 keys"),
    "a long name": (header(struct.pack("<Q", HUGE), number=1), "expected the name of a key, received one of"),
    "a long text": (header(key("a", 8, struct.pack("<Q", HUGE)), number=1), "expected 4,611,686,018,427,387,904 more"),
    "a long list": (header(key("a", 9, struct.pack("<IQ", 8, HUGE)), number=1), "more bytes of its header"),
    "a long list of numbers": (header(key("a", 9, struct.pack("<IQ", 4, HUGE)), number=1), "more bytes of its header"),
    "a list of lists": (header(key("a", 9, struct.pack("<IQ", 9, 1)), number=1), "received one of type 9"),
    "an unknown type": (header(key("a", 77, b""), number=1), "'a': has the unknown type 77"),
    "no UTF-8": (header(key("a", 8, struct.pack("<Q", 1) + b"\xff"), number=1), "is not UTF-8"),
    "no UTF-8 in a list": (
        header(key("a", 9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1) + b"\xff"), number=1),
        "is not UTF-8",
    ),
    "a list that ends": (header(key("a", 9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 9)), number=1), "more bytes"),
    "a key twice": (header(2 * key("a", 7, b"\1"), number=2), "'a' occurs twice"),
    "a part": (header(key("split.count", 2, struct.pack("<H", 3)), number=1), "is one of 3 parts"),
    "an odd alignment": (header(key("general.alignment", 4, struct.pack("<I", 24)), number=1), "a power of two"),
    "no dimensions": (header(b"", tensor("a")), "expected 1 to 4 dimensions, received 0"),
    "many dimensions": (header(b"", tensor("a", 1, 1, 1, 1, 1)), "expected 1 to 4 dimensions, received 5"),
    "unknown numbers": (header(b"", tensor("a", 32, kind=17)), "'a': has the unknown type 17; known: F32"),
    "half a block": (header(b"", tensor("a", 33, kind=8)), "rows of 32 numbers each do not make (33,)"),
    "an empty shape": (header(b"", tensor("a", 0, 3)), "do not make (3, 0)"),
    "a product beyond all bounds": (header(b"", tensor("a", HUGE, HUGE)), "do not fit together"),
    "more than there is": (header(b"", tensor("a", 1 << 20)), "do not fit together"),
    "an offset beyond": (header(b"", tensor("a", 4, offset=HUGE)) + bytes(64), "do not fit together"),
    "one over the other": (header(b"", tensor("a", 8), tensor("b", 8)) + bytes(96), "do not fit together"),
    "a gap": (header(b"", tensor("a", 8), tensor("b", 8, offset=64)) + bytes(200), "do not fit together"),
    "a tensor twice": (header(b"", tensor("a", 8), tensor("a", 8, offset=32)) + bytes(96), "'a' occurs twice"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_fit_is_refused_in_one_line_and_little_memory(name: str, tmp_path: Path):
    content, expected = HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(FormatError) as refused:
        read_gguf(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(refused.value)
    assert message.startswith("hostile.gguf: ")
    assert expected in message
    assert "\n" not in message
    assert len(message) < 300
    assert most < 1 << 20


def test_texts_of_all_lists_together_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_TEXTS", 3)
    write_gguf(tmp_path / "a", {"a": ["x", "y"], "b": ["z"]}, {}, {})
    read_gguf(tmp_path / "a")
    write_gguf(tmp_path / "b", {"a": ["x", "y"], "b": ["z", "z"]}, {}, {})
    with pytest.raises(FormatError, match="expected at most 3 texts, received more"):
        read_gguf(tmp_path / "b")


@pytest.mark.profile("ci")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.gguf"
    if not whole.exists():
        write_gguf(whole, SETTINGS, ARRAYS, KINDS)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    end = data.draw(st.sampled_from([len(content), len(content) // 2]) | st.integers(0, len(content)))
    path = folder / "damaged.gguf"
    path.write_bytes(bytes(content[:end]))
    try:
        found = read_gguf(path)
    except FormatError as error:
        assert len(str(error)) < 300  # noqa: PT017 - both ways are right
    else:
        for array in found.tensors.values():
            assert np.asarray(array).shape == array.shape


def test_a_file_of_gigabytes_is_open_at_once(tmp_path: Path):
    """A sparse one, of which nothing but the header is on the disk: to read it would take memory."""
    rows, path = 1 << 18, tmp_path / "large.gguf"
    begin = header(b"", tensor("large", 1 << 10, rows))
    with path.open("wb") as file:
        file.write(begin)
        os.truncate(file.fileno(), len(begin) + 64 + rows * 4096)
    tracemalloc.start()
    found = np.asarray(read_gguf(path).tensors["large"])
    last = found[-1, -4:].tolist()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.nbytes == 1 << 30
    assert last == [0, 0, 0, 0]
    assert most < 1 << 20
    assert not found.flags.writeable
