"""The rights of the user who runs the tests."""

import os

import pytest

# starts a command for which the modes of files count: for root they do not
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
if os.geteuid():
    UNPRIVILEGED = []

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users")
