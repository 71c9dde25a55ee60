from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.worker_rabbitmq import RabbitMq


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    node = RabbitMq(tmp_path_factory.mktemp("rabbitmq"))
    yield node
    node.stop()
