"""What fault drills share; the options and the fixture ``faults`` stand in the conftest above."""

from collections.abc import Iterator

import pytest

from faults.kill import Children


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Runs jobs in processes to be struck down (`faults.kill`)."""
    made = Children(tmp_path_factory.mktemp("home"))
    yield made
    made.close()
