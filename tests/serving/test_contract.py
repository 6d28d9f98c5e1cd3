"""schemathesis: whatever the OpenAPI page allows or forbids, the service answers as the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.keys import load_keys
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import open_store
from taiji.serving.types import FeatureRow, Release
from tests.serving.doubles import LengthScorer

SECRET = "a" * 24
USERS = ["0", "1", "u1"]


def make_app(folder: Path) -> object:
    store = open_store(ServingSettings(store=f"sqlite:{folder / 'store.sqlite3'}"))
    for name in ("r1", "r2"):
        store.add_release(Release(name, "/run", name, name), 1)
    store.publish("r1", [FeatureRow(user, 5, (1,), None, (), "r1", "r1", 5, 0) for user in USERS], 10)
    scorers = Scorers(store, lambda run: LengthScorer())
    scorers.refresh()
    return build_app(store, scorers, ServingSettings(), load_keys(None, {"TAIJI_API_KEYS": f"boss:admin:{SECRET}"}), SteadyClock())


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", make_app(tmp_path_factory.mktemp("contract")))


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: schemathesis.Case) -> None:
    """All of schemathesis's checks: no server error, documented status, media type and body, no way around the key, …"""
    case.call_and_validate(headers={"Authorization": f"Bearer {SECRET}"})
