"""Failures in the shared suites are explained as those of the tests themselves."""

import pytest

pytest.register_assert_rewrite("tests.suites.store_suite")
