"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# The first example compiles kernels, so no example has a deadline.
settings.register_profile(
    "default", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
