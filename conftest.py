"""Settings for every test process and for the kernels that nbval starts."""

import os

os.environ["GROUND_TRUTH_PROGRESS"] = "off"
# Two test processes with two torch threads each on two cores collapse: one thread for each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"
# The tests never reach for the Hub; the real-model sections say in one line that they were skipped.
os.environ["HF_HUB_OFFLINE"] = "1"
