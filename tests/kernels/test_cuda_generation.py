"""What generation asks of a device: flash decoding, and what it adds to the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.places import PLACES, open_place
from tests.kernels.test_cuda import TYPES
from tinygrad_chat import ops
from tinygrad_chat.backend import Backend
from tinygrad_chat.kernels.cuda import attention, cache, flash_attention
from tinygrad_chat.nn.cache import write_columns


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


def attend(device: Backend, arrays: list[Any], **options: Any) -> np.ndarray:
    return device.to_host(attention.attention(*arrays, heads=4, **options)[0])


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("D", [8, 9, 64])
def test_room_behind_the_keys_changes_no_bit(device: Backend, D: int, real: str):
    xp, random, length = device.xp, np.random.default_rng(0), 150
    query, keys, values = (
        xp.asarray(random.normal(size=(2, columns, heads * D))).astype(real)
        for columns, heads in ((1, 4), (400, 2), (400, 2))
    )
    starts = xp.asarray(np.array([[3], [140]]))
    keys[:, length:] = values[:, length:] = np.nan
    cut = attend(device, [query, keys[:, :length], values[:, :length]], window=120, document_starts=starts)
    given = {"window": 120, "document_starts": starts, "length": xp.asarray(np.array(length))}
    np.testing.assert_array_equal(attend(device, [query, keys, values], **given), cut)
    assert not np.isnan(cut.astype(np.float32)).any()


@pytest.mark.parametrize("where", [10, 200])
def test_a_score_that_is_no_number_is_not_left_out(device: Backend, where: int):
    query, keys, values = (device.xp.ones((1, columns, 32), np.float32) for columns in (1, 300, 300))
    keys[:, where] = np.nan
    assert np.isnan(attend(device, [query, keys, values])).all()


def test_one_query_in_bfloat16_has_its_gradient_from_flash_attention(device: Backend, monkeypatch: pytest.MonkeyPatch):
    taken, flash = [], flash_attention.attention
    monkeypatch.setattr(
        flash_attention, "attention", lambda *inputs, **options: taken.append(1) or flash(*inputs, **options)
    )
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(1, columns, 128)).astype("bfloat16") for columns in (1, 70, 70, 1)]
    *there, d_out = map(device.xp.asarray, arrays)
    out, backward = attention.attention(*there, heads=2)
    assert not taken
    found = [device.to_host(x).astype(np.float32) for x in (out, *backward(d_out))]
    assert taken
    *given, d_out = (x.astype(np.float32) for x in arrays)
    out, backward = ops.attention.reference(*given, heads=2)
    for ours, reference in zip(found, (out, *backward(d_out)), strict=True):
        np.testing.assert_allclose(ours, reference, atol=3e-2)


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize(("T", "width", "beside"), [(1, 16, 0), (5, 16, 0), (5, 16, 1), (3, 7, 0)])
def test_new_tokens_are_written_where_the_device_knows(device: Backend, T: int, width: int, beside: int, real: str):
    random, xp = np.random.default_rng(0), device.xp
    together = random.normal(size=(3, T, 2 * width + beside)).astype(real)
    buffer = random.normal(size=(2, 4, 300, width)).astype(real)
    key, value = together[..., :width], together[..., width : 2 * width]
    expected = buffer.copy()
    write_columns(key, value, expected[0, :3], expected[1, :3], 7)
    for column in (7, xp.asarray(np.array(7))):
        there, slices = xp.asarray(buffer), xp.asarray(together)
        cache.write_columns(slices[..., :width], slices[..., width : 2 * width], there[0, :3], there[1, :3], column)
        np.testing.assert_array_equal(device.to_host(there), expected)
