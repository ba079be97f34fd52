"""Work that is shared out among threads."""

from __future__ import annotations

import threading
from collections.abc import Callable


def share(work: Callable[[int, int], None], parts: int) -> None:
    """Do all parts of some work, each in a thread. They do not spin while they wait, as Numba's and BLAS's do."""
    threads = [threading.Thread(target=work, args=(part, parts)) for part in range(1, parts)]
    for thread in threads:
        thread.start()
    work(0, parts)
    for thread in threads:
        thread.join()
