"""Records what instrumentations export: python -m tests.recordings.record [NAME ...]

Each instrumentation gets a virtual environment of its own, with the packages that are named in
`instrumentations`. Its program talks to a server on loopback, which answers as the vendor's API
does and receives the OTLP. Nothing else is called; only pip needs the network.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from tests.otlp.otlp import IDS, as_json
from tests.recordings.record.calls import facts
from tests.recordings.record.instrumentations import INSTRUMENTATIONS, Instrumentation
from tests.recordings.record.server import Recorder, serving
from tests.recordings.recording import DATA, ENVIRONMENT, expected_words

__all__ = ["main"]

_PROGRAMS = Path(__file__).parent / "programs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.recordings.record", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(INSTRUMENTATIONS))
    parser.add_argument(
        "--environments",
        type=Path,
        help="keep the virtual environments in this folder, and use those that are in it",
    )
    given = parser.parse_args()
    unknown = set(given.names) - set(INSTRUMENTATIONS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(INSTRUMENTATIONS)}")
    with tempfile.TemporaryDirectory() as temporary:
        environments = (given.environments or Path(temporary)).absolute()
        for name in given.names or INSTRUMENTATIONS:
            instrumentation = INSTRUMENTATIONS[name]
            python = _environment(environments / name, instrumentation.packages)
            shutil.rmtree(DATA / name, ignore_errors=True)
            for scenario in instrumentation.scenarios:
                size = _record(python, instrumentation, scenario, DATA / name / scenario)
                print(f"{name}/{scenario}: {size / 1000:.1f} kB", flush=True)


def _environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """The Python of a virtual environment with the packages."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"Installing {', '.join(packages)} ...", flush=True)
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, *packages], check=True)
    return python


def _record(python: Path, instrumentation: Instrumentation, scenario: str, folder: Path) -> int:
    """Write what a scenario exports to a folder; return how many bytes."""
    told, recorder = _run(python, instrumentation.program, scenario)
    expected = {
        "packages": instrumentation.packages,
        "told": told,
        "unsent": instrumentation.unsent.get(scenario, ()),
        "calls": [facts(call) for call in recorder.calls],
    }
    sent = {
        f"{number}-{signal}": _text(_with_lower_case_ids(as_json(message)))
        for number, (signal, message) in enumerate(recorder.received, 1)
    }
    # Stack traces have the paths of this machine.
    paths = {
        str(python.parents[1]): "/environment",
        str(_PROGRAMS): "/app",
        sys.base_prefix: "/usr",
    }
    folder.mkdir(parents=True)
    for name, text in ({"expected": _text(expected)} | sent).items():
        for path, instead in paths.items():
            text = text.replace(path, instead)  # noqa: PLW2901
        (folder / f"{name}.json").write_text(text)
    _check_unsent(expected, sent)
    return sum(path.stat().st_size for path in folder.iterdir())


def _run(python: Path, program: str, scenario: str) -> tuple[dict[str, Any], Recorder]:
    """Run a program: what it told the instrumentation, and what the server recorded."""
    with serving() as (url, recorder), tempfile.TemporaryDirectory() as work:
        resource = f"service.name=harbour-office,deployment.environment.name={ENVIRONMENT}"
        ran = subprocess.run(
            [str(python), str(_PROGRAMS / f"{program}.py"), scenario],
            cwd=work,
            # Settings of the caller's own, such as keys and endpoints, must not reach the program.
            env={
                "PATH": os.environ["PATH"],
                "HOME": work,
                "RECORDING_SERVER": url,
                "OTEL_RESOURCE_ATTRIBUTES": resource,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    if ran.returncode:
        raise SystemExit(f"{program} {scenario} failed:\n{ran.stderr}")
    told: dict[str, Any] = {}
    for line in ran.stdout.splitlines():
        told |= json.loads(line)
    return told, recorder


def _check_unsent(expected: dict[str, Any], sent: dict[str, str]) -> None:
    """A text that is declared as unsent is on no span; any other has been sent."""
    anywhere = "".join(sent.values())
    on_spans = "".join(text for name, text in sent.items() if name.endswith("traces"))
    sought = expected_words(expected)
    sought |= {key: expected["told"][key] for key in ("user", "session") if key in expected["told"]}
    wrong = [
        key
        for key, text in sought.items()
        if (text in on_spans if key in expected["unsent"] else text not in anywhere)
    ]
    if wrong:
        raise SystemExit(f"Correct `unsent` in instrumentations.py: {', '.join(wrong)}")


def _with_lower_case_ids(value: Any) -> Any:
    """OTLP/JSON with ids as senders write them: `as_json` writes them in upper case."""
    if isinstance(value, dict):
        return {
            key: inner.lower()
            if key in IDS and isinstance(inner, str)
            else _with_lower_case_ids(inner)
            for key, inner in value.items()
        }
    return [_with_lower_case_ids(inner) for inner in value] if isinstance(value, list) else value


def _text(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    main()
