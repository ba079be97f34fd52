"""How many threads products take beside other work."""

from __future__ import annotations

import pytest

from tinygrad_chat.backend import host_threads


@pytest.mark.parametrize(
    ("cores", "chosen", "spare"),
    [(1, 1, 1), (2, 2, 1), (8, 8, 7), (8, 4, 4), (2, 8, 1)],
)
def test_a_core_is_left_for_others_and_what_a_user_chose_is_not_exceeded(
    cores: int, chosen: int, spare: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(host_threads, "count_cores", lambda: cores)
    monkeypatch.setattr(host_threads, "blas_threads", lambda: chosen)
    assert host_threads.spare_threads() == spare
