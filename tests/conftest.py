"""What holds for all tests: a busy machine is no failure, and packaging/test tries the same examples each time.

pytest run by hand tries new ones; hypothesis keeps an example that failed and tries it again.
"""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="SAME_EXAMPLES" in os.environ,
)
settings.load_profile("house")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs behind `&` with SIGINT ignored, and processes under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
