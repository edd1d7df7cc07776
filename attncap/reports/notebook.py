"""One line of set-up for notebooks: quiet imports, seeds, the style of figures, and the versions in use."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from attncap._quiet import quiet_start


def notebook_setup(*, seed: int = 0, dpi: float | None = None, style: bool = True) -> None:
    """Prepare a notebook: load Keras and TensorFlow quietly, set seeds and the style of figures, print versions.

    Args:
        seed: of Python, NumPy and the Keras backend.
        dpi: resolution of figures in dots per inch; lower keeps the notebook's file small. Default: matplotlib's.
        style: False leaves matplotlib's settings as they are.

    Example:
        >>> import attncap
        >>> attncap.notebook_setup()
        attncap 0.1.0, keras 3.15.0, tensorflow 2.21.0, numpy 2.4.0, pandas 3.1.0, matplotlib 3.11.0
    """
    quiet_start()
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, where Jupyter's widgets are missing
    import keras
    import matplotlib

    from attncap.plotting.style import STYLE

    keras.utils.set_random_seed(seed)
    if style:
        matplotlib.rcParams.update(STYLE)
    if dpi is not None:
        matplotlib.rcParams.update({"figure.dpi": dpi, "savefig.dpi": dpi})
    names = ["attncap", "keras", keras.backend.backend(), "numpy", "pandas", "matplotlib"]
    modules: list[Any] = [import_module(name) for name in names]
    print(", ".join(f"{name} {module.__version__}" for name, module in zip(names, modules, strict=True)))
