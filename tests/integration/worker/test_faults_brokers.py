"""An exception in any of our hooks changes nothing for programs on RabbitMQ: each throws in turn, and all at once."""

from __future__ import annotations

from tests.support.worker_faults import check, compared, flows_of
from tests.support.worker_rabbitmq import RabbitMq


def test_no_program_on_rabbitmq_notices_an_exception_in_a_hook(rabbitmq: RabbitMq) -> None:
    check(compared(flows_of("broker_flows"), amqp=rabbitmq.url), "brokers")
