"""Training on features computed elsewhere: find the file, and refuse settings that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attncap.features.external import ExternalFeatures
from attncap.features.sources import as_features
from attncap.training.config import TrainConfig
from attncap.training.run_folder import RunFolder, read_object


def features_file(run: str | Path) -> str | None:
    """Return the file of features that a run was trained on, None if it computed them from images.

    Args:
        run: run folder, or a `.keras` file in it.

    Raises:
        FileNotFoundError: the file is not where it was.
    """
    noted = _manifest(Path(run)).get("features_file")
    if noted is not None and not Path(noted).is_file():
        raise FileNotFoundError(f"{noted}: the run was trained on this file of features: name it with --features-file")
    return noted


def given_features(features: Any, folder: RunFolder, resume: bool) -> Any:
    """Return the features for `train`; for a resumed run by default the file that it began with.

    Raises:
        FileNotFoundError: the file is not where it was.
        ValueError: it began with an array, a function or an object, which is not given again.
    """
    if not resume or features is not None:
        return as_features(features)
    if _manifest(folder.path).get("features_given"):
        raise ValueError(f"{folder.path}: cannot resume: the run was given features of your own: give them again")
    return as_features(features_file(folder.path))


def check_external(config: TrainConfig, features: ExternalFeatures, boxes: str | None) -> None:
    """Raise ValueError if settings do not fit features computed elsewhere.

    Args:
        config: settings of an encoder must be left out.
        features: given to `train`.
        boxes: of supervised attention, which needs a grid.
    """
    for name, value in config.chosen().items():
        if name in ("backbone", "weights", "layer", "image_size", "finetune_to"):
            raise ValueError(f"{name} is {value}, but features are read from {features.name}: leave {name} out")
    if boxes is not None and features.grid is None:
        raise ValueError(
            f"boxes {boxes!r} supervise the maps of a grid, and {features.name} has regions: leave them out"
        )


def _manifest(run: Path) -> dict[str, Any]:
    manifest = (run if run.is_dir() else run.parent) / "manifest.json"
    return read_object(manifest) if manifest.is_file() else {}
