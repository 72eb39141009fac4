"""What holds for all tests: a busy machine is no failure, and packaging/test tries the same examples each time.

Whoever runs pytest by hand tries new ones; an example that failed is kept by hypothesis and tried again.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="SAME_EXAMPLES" in os.environ,
)
settings.load_profile("house")
