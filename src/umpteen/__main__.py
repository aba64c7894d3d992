"""`python -m umpteen`: the command, where there is no script of that name on the path."""

from __future__ import annotations

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the folder that we are in, which may have a `random.py`

from umpteen.cli.main import main

main()
