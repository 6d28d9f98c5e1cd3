"""Devices that tests of tensor code run on: the processor, and a GPU where there is one."""

from __future__ import annotations

import torch

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
