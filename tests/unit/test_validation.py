"""Settings of one component: what a Collector configuration may write, and mistakes with their path."""

from __future__ import annotations

import pytest

from tests.unit.config_fakes import BASE, Backend, Listener, backend, backend_mistakes, loaded, mistakes

# -- references --------------------------------------------------------------------------------------------------------


def test_a_variable_that_is_not_set_is_empty_and_warned_of() -> None:
    config = loaded(BASE, "exporters: {backend: {key: 'x-${env:NOPE}', port: '${NOPE}', headers: {a: '${NOPE}'}}}")
    settings = config.exporters["backend"].config
    assert (settings.key.get_secret_value(), settings.port) == ("x-", 0)
    assert settings.headers["a"].get_secret_value() == ""
    assert "exporters.backend.key: the environment variable NOPE is not set, the value is empty" in config.warnings


def test_a_reference_is_text_where_text_is_wanted_and_a_number_where_a_number_is() -> None:
    settings = backend("{key: '${KEY}', port: '${KEY}', headers: {a: '${KEY}', b: '${T}'}}", KEY="0123", T="true")
    assert settings.key.get_secret_value() == "0123"
    assert settings.port == 83
    assert settings.headers["a"].get_secret_value() == "0123"
    assert settings.headers["b"].get_secret_value() == "true"


def test_a_reference_may_bring_a_whole_section() -> None:
    assert backend("'${env:ALL}'", ALL="{endpoint: 'a:1', timeout: 1m}").timeout == 60.0


def test_messages_show_a_reference_as_written_and_never_its_value() -> None:
    found = backend_mistakes(
        "{endpoint: '${env:E}', port: '${env:P}', timeout: '${env:T}s'}", E="s3cret", P="s3cret", T="s3cret"
    )
    assert len(found) == 3
    assert not [text for text in found if "s3cret" in text]
    assert found[0] == "exporters.backend.endpoint: '${env:E}' is not host:port, such as 127.0.0.1:4317"


# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_key_without_a_value_means_the_defaults() -> None:
    config = loaded(BASE, "exporters: {backend: {endpoint: , tls: , sending_queue: , timeout: }}")
    assert config.receivers["door"].config.grpc == Listener()
    assert config.receivers["door"].config.http is None
    assert config.exporters["backend"].config == Backend.Config()


def test_a_section_that_has_no_defaults_stays_off_without_a_value() -> None:
    assert loaded(BASE, "receivers: {door: {grpc: {tls: }}}").receivers["door"].config.grpc.tls is None


def test_keys_without_effect_are_accepted_with_a_warning_that_tells_why() -> None:
    queue = "{enabled: true, queue_size: 5}"
    retry = "{max_elapsed_time: 5m}"
    settings = f"{{balancer_name: x, sending_queue: {queue}, retry_on_failure: {retry}}}"
    config = loaded(BASE, f"exporters: {{backend: {settings}}}")
    assert config.warnings == [
        "exporters.backend.sending_queue: enabled, queue_size: accepted without effect: "
        "the outbox on disk is the queue; its size is outbox.max_size_mib",
        "exporters.backend.retry_on_failure: max_elapsed_time: accepted without effect: "
        "nothing is dropped by time: a batch stays in the outbox until the backend answers",
        "exporters.backend: balancer_name: accepted without effect: there is one backend",
    ]


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ("{endpont: x}", "exporters.backend.endpont: unknown key; allowed: endpoint, headers, key, port"),
        ("{endpont: x}", "did you mean endpoint?"),
        ("{tls: {insecur: true}}", "exporters.backend.tls.insecur: unknown key; allowed: ca_file"),
        ("{tls: {insecure: maybe}}", "exporters.backend.tls.insecure: must be true or false, not 'maybe'"),
        ("{tls: 5}", "exporters.backend.tls: must be a map"),
        ("5", "exporters.backend: must be a map"),
        ("{port: x}", "exporters.backend.port: must be a whole number, not 'x'"),
        ("{timeout: 5}", "exporters.backend.timeout: 5 has no unit; write 5s, 5ms"),
        ("{headers: s3cret}", "exporters.backend.headers: must be a map"),
        ("{headers: {a: 5}}", "exporters.backend.headers.a: must be text"),
        (
            "{retry_on_failure: {multiplier: 0}}",
            "retry_on_failure.multiplier: must be greater than or equal to 1, not 0",
        ),
        ("{retry_on_failure: {initial_interval: 1h}}", "exporters.backend.retry_on_failure: initial_interval must be"),
        ("{sending_queue: {size: 5}}", "exporters.backend.sending_queue.size: unknown key; allowed: none"),
    ],
)
def test_mistakes_have_their_path_and_what_is_allowed(settings: str, mistake: str) -> None:
    found = backend_mistakes(settings)
    assert len(found) == 1
    assert mistake in found[0]
    assert "s3cret" not in found[0]


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ("{rules: [{key: a}, {kye: b}]}", "processors.rules.rules[1].key: is needed"),
        (
            "{rules: [{key: a}, {key: b, kye: b}]}",
            "processors.rules.rules[1].kye: unknown key; allowed: action, key, value",
        ),
        (
            "{rules: [{key: a, action: drop}]}",
            "processors.rules.rules[0].action: 'drop' is not allowed; allowed: 'insert'",
        ),
        ("{rules: {a: 1}}", "processors.rules.rules: must be a list"),
        ("{limit: -1}", "processors.rules.limit: must be greater than or equal to 0, not -1"),
    ],
)
def test_mistakes_in_lists_have_their_index(settings: str, mistake: str) -> None:
    assert any(text.startswith(mistake) for text in mistakes(BASE, f"processors: {{rules: {settings}}}"))


def test_a_value_of_any_type_keeps_the_type_that_yaml_gives_it() -> None:
    config = loaded(BASE, "processors: {rules: {rules: [{key: a, value: '${N}'}, {key: b, value: '5'}]}}", N="5")
    assert [rule.value for rule in config.processors["rules"].config.rules] == [5, "5"]


def test_messages_show_no_password_of_a_url() -> None:
    assert backend_mistakes("{endpoint: 'https://me:s3cret@host'}") == [
        "exporters.backend.endpoint: 'https://[REDACTED]@host' has a scheme; allowed: host:port without one"
    ]


def test_a_reference_that_is_text_does_not_hide_other_mistakes() -> None:
    assert backend_mistakes("{headers: {a: '${A}'}, port: x}", A="5") == [
        "exporters.backend.port: must be a whole number, not 'x'"
    ]


def test_of_all_types_that_were_tried_each_is_told() -> None:
    assert backend_mistakes("{sizes: [1, {}]}") == [
        "exporters.backend.sizes[1]: must be a whole number, or must be text"
    ]


def test_a_choice_lists_what_is_allowed_and_a_map_of_sections_wants_sections() -> None:
    found = mistakes(BASE, "processors: {rules: {color: green, named: {one: 5}}}")
    assert found == [
        "processors.rules.color: 'green' is not allowed; allowed: 'red' or 'blue'",
        "processors.rules.named.one: must be a map",
    ]


def test_mistakes_in_maps_have_their_key() -> None:
    found = mistakes(BASE, "processors: {rules: {named: {one: {key: a, kye: b}}}}")
    assert found == ["processors.rules.named.one.kye: unknown key; allowed: action, key, value; did you mean key?"]
