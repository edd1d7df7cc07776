"""Print the lowest version that pyproject.toml allows of each package, as constraints for pip: `make test-lowest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

RUNTIME_EXTRAS = (
    "lab",
    "jax",
    "index",
    "heic",
    "safetensors",
    "ray",
)  # the tools of tests and documentation stay at their newest


def main() -> None:
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    extras = (project["optional-dependencies"][extra] for extra in RUNTIME_EXTRAS)
    for requirement in sorted({*project["dependencies"], *(row for rows in extras for row in rows)}):
        match = re.match(r"([\w.-]+)>=([\d.]+)", requirement)
        if match is None:
            raise SystemExit(f"pyproject.toml: {requirement}: NAME>=VERSION expected")
        print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main()
