"""Results as they are kept: dated, with the machine named."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def circumstances() -> dict[str, str]:
    """The date, and the machine: cores and model of the processor, as the system tells them."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}",
    }


def keep(result: dict[str, Any], out: Path | None) -> None:
    """Write a result into a file, if one is named."""
    if out:
        text = json.dumps(result, indent=2, ensure_ascii=False)
        out.write_text(text + "\n", encoding="utf-8")
