"""The trainer: reads event logs, fits forgetting and models, exports and publishes releases."""

import os

# Torch's threads spin while they wait for each other, which on a busy machine takes the cores
# from the very thread they wait for: training slowed thirtyfold beside one other process.
# OpenMP reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
