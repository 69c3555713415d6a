from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import Dev


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    made = Dev()
    yield made
    made.close()
