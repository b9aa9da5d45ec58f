"""The pages of a desk at the fixed instant of the tests."""

from starlette.types import ASGIApp

from rotator.adapters.metrics import Metrics
from rotator.adapters.web import make_app
from tests.desk import NOW, DataDesk
from tests.fakes import FixedClock


def page_app(desk: DataDesk, *, status_page: bool = True, own_names_only: bool = False) -> ASGIApp:
    """Return the app, for which it is always `NOW`."""
    metrics = Metrics(desk, 10, FixedClock(NOW))
    return make_app(desk, metrics, status_page=status_page, own_names_only=own_names_only, wall=lambda: NOW)
