"""What fault drills share; ``--faults`` and ``--faults-record`` stand in the conftest above, where pytest sees them."""

from collections.abc import Iterator

import pytest

from faults.kill import Children
from faults.record import Faults


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Faults:
    """Makes drills (`faults.record`)."""
    return Faults(request.config.getoption("--faults"), request.config.getoption("--faults-record"))


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Runs jobs in processes to be struck down (`faults.kill`)."""
    made = Children(tmp_path_factory.mktemp("home"))
    yield made
    made.close()
