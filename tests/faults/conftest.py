"""What fault drills share; ``--faults`` and ``--faults-record`` stand in the conftest above, where pytest sees them."""

import pytest

from faults.record import Faults


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Faults:
    """Makes drills (`faults.record`)."""
    return Faults(request.config.getoption("--faults"), request.config.getoption("--faults-record"))
