"""Memory of this process."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Free what only cycles hold, and return freed memory to the system, where the C library has a function for it (glibc).

    Call this after models were loaded or trained: glibc keeps the pages of what they leave, and peaks add up.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
