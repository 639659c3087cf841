"""Names the machine a result is of."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine() -> str:
    """Cores and model of the processor, as well as the system tells it."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}"
