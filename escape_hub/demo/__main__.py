"""``python -m escape_hub.demo``: the hub and all it needs on this machine, until Ctrl-C."""

from __future__ import annotations

import sys

from escape_hub.demo.launcher import main

sys.exit(main())
