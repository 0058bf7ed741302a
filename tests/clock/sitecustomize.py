"""On the path of a child process: its clock is wrong by ``$WRONG_BY_S`` seconds."""

import os
import time

_real, _real_ns = time.time, time.time_ns
_by_s = int(os.environ.get("WRONG_BY_S", "0"))
time.time = lambda: _real() + _by_s
time.time_ns = lambda: _real_ns() + _by_s * 10**9
