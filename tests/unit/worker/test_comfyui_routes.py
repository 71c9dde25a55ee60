"""What URLs mean."""

from __future__ import annotations

import pytest

from otel_pipeline.worker.comfyui.routes import Endpoint, base_of, classify

ID = "35d6982c-5de2-4e07-a699-a4bcd1722b27"


@pytest.mark.parametrize(
    ("path", "endpoint", "argument"),
    [
        ("/prompt", Endpoint.PROMPT, ""),
        ("/api/prompt", Endpoint.PROMPT, ""),
        (f"/history/{ID}", Endpoint.HISTORY, ID),
        ("/history?max_items=2", Endpoint.HISTORY, ""),
        ("/queue", Endpoint.QUEUE, ""),
        ("/view?filename=a.png&type=output", Endpoint.VIEW, ""),
        ("/api/upload/image", Endpoint.UPLOAD, "image"),
        ("/api/jobs", Endpoint.JOBS, ""),
        (f"/api/jobs/{ID}", Endpoint.JOBS, ID),
        (f"/api/jobs/{ID}/cancel", Endpoint.JOBS, f"{ID}/cancel"),
        ("/api/jobs/cancel", Endpoint.JOBS, "cancel"),
        ("/object_info/KSampler", Endpoint.OBJECT_INFO, "KSampler"),
        ("/models/checkpoints", Endpoint.OTHER, "checkpoints"),
        ("/ws?clientId=x", Endpoint.SOCKET, ""),
        ("/", Endpoint.ROOT, ""),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/proxy/8188"])
def test_routes_are_told_with_and_without_a_prefix(path: str, endpoint: Endpoint, argument: str, prefix: str) -> None:
    if path == "/" and prefix:
        assert classify("GET", f"http://h:1{prefix}{path}") is None
        return
    route = classify("get", f"http://Host.example:1234{prefix}{path}")
    assert route is not None
    assert (route.endpoint, route.argument, route.method) == (endpoint, argument, "GET")
    assert route.base == f"host.example:1234{prefix}"
    assert route.backend == "host.example:1234"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1/users/1",
        "https://api.example.com/jobs/1",
        "/prompt",
        "",
        "not a url",
        "ftp://host/prompt",
        "http://host:notaport/prompt",
        "http://[::1/prompt",
        "http://h/prompt?" + "x" * 9000,
    ],
)
def test_other_urls_are_no_routes(url: str) -> None:
    assert classify("GET", url) is None


def test_ports_follow_from_the_scheme() -> None:
    route = classify("POST", "https://comfy.example/api/prompt")
    assert route is not None
    assert (route.base, route.port, route.reads) == ("comfy.example:443", 443, False)


def test_a_configured_server_is_a_url_or_an_address() -> None:
    assert base_of("http://127.0.0.1:8188/") == "127.0.0.1:8188"
    assert base_of("127.0.0.1:8188") == "127.0.0.1:8188"
    assert base_of("https://gw.example/comfy/api") == "gw.example:443/comfy"


def test_parameters_of_a_query() -> None:
    route = classify("GET", "http://h:1/view?filename=a%20b.png&subfolder=")
    assert route is not None
    assert (route.parameter("filename"), route.parameter("subfolder"), route.parameter("type")) == ("a b.png", "", "")
