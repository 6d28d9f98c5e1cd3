"""Runs ``serve`` for the rig: ``python -m tests.serving.child RUN``, settings from the environment."""

from __future__ import annotations

import os
import sys

from taiji.serving import serve
from taiji.serving.logs import to_standard_error
from taiji.serving.settings import ServingSettings

if __name__ == "__main__":
    to_standard_error()
    serve(
        sys.argv[1],
        ServingSettings.model_validate_json(os.environ["TAIJI_RIG_SETTINGS"]),
        started=lambda text: print(text, flush=True),
    )
