"""What all tests share: real processes, and how much hypothesis tries.

HYPOTHESIS_PROFILE is ``default``, ``ci`` or ``nightly``.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Failures in the shared suites are explained as those of the tests themselves.
pytest.register_assert_rewrite("tests.suites")

# Real processes that tests of several folders share: one Triton, one release, one gateway a run.
pytest_plugins = (
    "tests.harness.triton",
    "tests.harness.release",
    "tests.harness.gateway",
    "tests.harness.redis",
)

# Wall time says nothing about a property on a busy machine, hence no deadline.
settings.register_profile("default", max_examples=100, deadline=None)
# The same examples each time: a change is judged by what it changes, not by luck.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile(
    "nightly",
    max_examples=10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
