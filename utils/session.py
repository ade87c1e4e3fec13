"""What every notebook calls first: seeds, device, figure template, and the doors to optional real models."""

from __future__ import annotations

import os
import random
import warnings
from functools import partial

import numpy as np
import torch


def start(seed: int = 0) -> None:
    """Make a notebook session reproducible and quiet: seed every generator, set the figure template.

    Call it again at any time to return the random generators to their first state.
    """
    import transformers
    from tqdm.auto import tqdm
    from transformer_lens import patching

    from utils import plots

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # Without ipywidgets tqdm warns at every bar; a plain text bar is what we want then.
    warnings.filterwarnings("ignore", message="IProgress not found")
    # The library's sweeps draw a bar for every call: here only for those that take longer than two seconds.
    patching.tqdm = partial(tqdm, delay=2, leave=False)
    plots.use_template()


def device() -> torch.device:
    """The device that models and data live on: CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def real_model(name: str = "gpt2"):
    """Load the Hub model of an *On a real model* section, or say in one line that it was skipped.

    The environment variable ``GROUND_TRUTH_REAL_MODEL`` (a folder in Hugging Face format) takes the
    place of the Hub model: for machines without a network, and for tests.

    Returns:
        The processed ``TransformerBridge``, or ``None`` when the model cannot be had here.
    """
    from utils import models

    substitute = os.environ.get("GROUND_TRUTH_REAL_MODEL")
    try:
        return models.load(substitute or name)
    except models.HubUnreachable:
        print(f"Skipped: {name} needs a network for its first download.")
    except models.ModelError as error:
        print(f"Skipped. {error}")
    return None
