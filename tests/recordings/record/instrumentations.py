"""The instrumentations that are recorded, with the packages and scenarios of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["INSTRUMENTATIONS", "Instrumentation"]

_SDK = ("opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-http==1.45.2")


@dataclass(frozen=True, kw_only=True)
class Instrumentation:
    """A program of `programs/` that uses the instrumentation, and what to run it with.

    Attributes:
        unsent: the facts that a scenario does not export although the server said them, or the
            program told them. The tests do not ask for them.
    """

    program: str
    packages: tuple[str, ...]
    scenarios: tuple[str, ...]
    unsent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


INSTRUMENTATIONS: Mapping[str, Instrumentation] = {
    "otel-openai": Instrumentation(
        program="otel_openai",
        packages=(*_SDK, "opentelemetry-instrumentation-genai-openai==1.3b0", "openai==3.57.0"),
        scenarios=("chat", "stream", "tool-in-spans", "error"),
    ),
    "openinference-openai": Instrumentation(
        program="openinference_openai",
        packages=(*_SDK, "openinference-instrumentation-openai==0.1.66", "openai==3.57.0"),
        scenarios=("session", "responses-stream", "tool", "embedding", "error"),
    ),
    "openllmetry-anthropic": Instrumentation(
        program="openllmetry_anthropic",
        packages=(
            *_SDK,
            "opentelemetry-instrumentation-anthropic==0.62.4",
            "anthropic==2.14.0",
        ),
        scenarios=("chat", "beside-sdk-spans", "stream", "tool", "error"),
        unsent={"stream": ("first_chunk_ms",)},
    ),
    "pydantic-ai": Instrumentation(
        program="pydantic_ai_agent",
        packages=(*_SDK, "pydantic-ai-slim[anthropic]==2.68.0", "anthropic==2.14.0"),
        scenarios=("agent", "stream", "error"),
        unsent={"agent": ("first_chunk_ms",)},
    ),
    "langfuse": Instrumentation(
        program="langfuse_openai",
        packages=("langfuse==5.0.4", "openai==3.57.0"),
        scenarios=("agent", "stream", "cost", "error"),
        unsent={
            "agent": ("provider",),
            "stream": ("provider",),
            "error": ("provider", "error_type"),
        },
    ),
    "mlflow": Instrumentation(
        program="mlflow_openai",
        packages=(*_SDK, "mlflow-tracing==3.17.2", "openai==3.57.0"),
        scenarios=("agent", "agent-genai-names", "stream", "error"),
        unsent={
            "agent": ("user", "session", "reasoning_tokens"),
            "agent-genai-names": (
                *("user", "session", "provider"),
                *("cached_tokens", "reasoning_tokens"),
            ),
            "stream": ("reasoning_tokens",),
        },
    ),
    "google-adk": Instrumentation(
        program="google_adk_agent",
        packages=("google-adk==2.13.0", "opentelemetry-exporter-otlp-proto-http==1.44.0"),
        scenarios=("agent", "agent-old-schema", "stream", "error"),
        # The old schema names the framework as the provider.
        unsent={"agent-old-schema": ("user", "provider"), "stream": ("first_chunk_ms",)},
    ),
    "strands": Instrumentation(
        program="strands_agent",
        packages=(
            "opentelemetry-sdk==1.45.1",
            "opentelemetry-exporter-otlp-proto-http==1.45.1",
            "strands-agents==1.62.0",
            "openai==2.54.0",
        ),
        scenarios=("agent", "stream", "error"),
        # It names itself as the provider.
        unsent={
            "agent": ("provider", "reasoning_tokens"),
            "stream": ("provider", "reasoning_tokens"),
            "error": ("provider",),
        },
    ),
}
