"""Tests, and programs that tests start, in the layout that the environment names."""

import os

if os.environ.get("TEST_CITUS_URL"):
    from tests.citus import have_layout_by_default

    have_layout_by_default()
