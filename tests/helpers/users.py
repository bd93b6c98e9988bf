"""The rights of the user who runs the tests."""

import os

import pytest

# starts a command for which the modes of files count: for root they do not
_RIGHTS = "-dac_override,-dac_read_search"
# the inheritable ones, too: older container engines set them, and root has them after exec
UNPRIVILEGED = ["setpriv", f"--inh-caps={_RIGHTS}", f"--bounding-set={_RIGHTS}"]
if os.geteuid():
    UNPRIVILEGED = []

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users")
