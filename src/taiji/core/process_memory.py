"""Memory of this process."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Free objects that only reference cycles keep alive, and return freed memory to the system, if the C library has a
    function for this (glibc).

    Call this after models have been loaded or trained. Otherwise glibc keeps the freed pages, and the peaks of
    successive models add up.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
