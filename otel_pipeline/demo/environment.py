"""What the demo's processes are given: ports, configurations, environment variables, commands."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import otel_pipeline
from otel_pipeline.demo.gpus import BUSY_ID
from otel_pipeline.demo.loopback import HOST, free_ports
from otel_pipeline.demo.processes import DemoError

PORTS: Final = {
    "grpc": 4317,
    "http": 4318,
    "metrics": 8889,
    "telemetry": 8888,
    "health": 13133,
    "jaeger": 14317,
    "jaeger_ui": 16686,
    "jaeger_query": 16685,
}
"""The ports that people know; a free one is taken where somebody listens already."""

GATEWAY: Final = "gateway.yaml"
FOLDER: Final = "${env:OTEL_PIPELINE_DEMO_DIR:-.}"
"""How the configurations name the folder of the demo."""

PEERS: Final = Path(".cache/peers/bin")
"""Where a checkout keeps the servers that it is tested against."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The folder, the ports and the binaries of one demo."""

    folder: Path
    ports: Mapping[str, int]
    instrument: str
    jaeger: str | None

    def url(self, port: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[port]}{path}"

    def gateway_command(self) -> tuple[str, ...]:
        self._config("prices.yaml")
        self._config(GATEWAY)
        return self.own_command("gateway", *self.data_dir_option, *self.config_option)

    @property
    def data_dir_option(self) -> tuple[str, ...]:
        """What tells a command beside the gateway where its files are."""
        return ("--data-dir", str(self.folder))

    @property
    def config_option(self) -> tuple[str, ...]:
        """The same for its settings, such as prices."""
        return ("--config", str(self.folder / GATEWAY))

    def own_command(self, *arguments: str) -> tuple[str, ...]:
        """A command of `otel-pipeline`, by this interpreter."""
        return (sys.executable, "-m", "otel_pipeline", *arguments)

    def gpus_command(self, comfyui_url: str) -> tuple[str, ...]:
        places = ("--comfyui", comfyui_url, "--gateway", self.url("http"))
        return (sys.executable, "-m", "otel_pipeline.demo.gpus", *places)

    def jaeger_command(self, binary: str) -> tuple[str, ...]:
        return (binary, "--config", self._config("jaeger.yaml"))

    def instrumented_command(self, module: str, *arguments: str) -> tuple[str, ...]:
        return (self.instrument, sys.executable, "-m", f"otel_pipeline.demo.{module}", *arguments)

    def variables(self) -> dict[str, str]:
        """For every child: the caller's, without OpenTelemetry settings that point elsewhere, and the demo's ports."""
        foreign = {key for key in os.environ if key.startswith("OTEL_") and not key.startswith("OTEL_PIPELINE_")}
        kept = {key: value for key, value in os.environ.items() if key not in foreign}
        addresses = {f"OTEL_PIPELINE_DEMO_{name.upper()}": f"{HOST}:{port}" for name, port in self.ports.items()}
        # The package has to be found wherever the child runs, also from a checkout that is not installed.
        package = str(Path(otel_pipeline.__file__).parents[1])
        return {
            **kept,
            **addresses,
            "OTEL_PIPELINE_DEMO_TELEMETRY_PORT": str(self.ports["telemetry"]),
            "OTEL_PIPELINE_DEMO_TRACE_EXPORTERS": "[file, otlp/jaeger]" if self.jaeger else "[file]",
            "PYTHONPATH": os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH")))),
            "NO_PROXY": ",".join(filter(None, (HOST, kept.get("NO_PROXY")))),
        }

    def instrumented_variables(self, service: str) -> dict[str, str]:
        """For a child under `opentelemetry-instrument`: all signals over OTLP/HTTP, with short delays."""
        return {
            **self.variables(),
            "OTEL_SERVICE_NAME": service,
            # Real GPUs of this machine, if it has any, stay out of it.
            "OTEL_PIPELINE_GPU_SAMPLING": "off",
            "OTEL_RESOURCE_ATTRIBUTES": f"process.environment_variable.CUDA_VISIBLE_DEVICES={BUSY_ID}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url("http"),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BLRP_SCHEDULE_DELAY": "500",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        }

    def _config(self, name: str) -> str:
        """Copies a configuration of the package into the folder, where the user finds what was run."""
        target = self.folder / name
        text = (files(__package__) / name).read_text("utf-8")
        # Who types a command beside the gateway has none of its variables.
        target.write_text(text.replace(FOLDER, str(self.folder).replace("$", "$$")), "utf-8")
        return str(target)


def prepare(folder: Path) -> Environment:
    """Finds ports and binaries; `DemoError` if `opentelemetry-instrument` is missing."""
    beside = Path(sys.executable).with_name("opentelemetry-instrument")
    instrument = str(beside) if beside.is_file() else shutil.which("opentelemetry-instrument")
    if instrument is None:
        raise DemoError("opentelemetry-instrument is missing; try: pip install 'otel-pipeline[demo]'")
    jaeger = shutil.which("jaeger") or shutil.which("jaeger", path=PEERS)
    return Environment(folder, free_ports(PORTS), instrument, str(Path(jaeger).absolute()) if jaeger else None)
