"""The registry of routes: every command finds the same ones, and each of them can be gone."""

import pytest

from compare.routes.registry import ROUTES, variants
from compare.subjects.mnist.networks import NETWORKS
from compare.toolchains import toolchains, worker
from compare.toolchains.model import ABILITIES

BY_NAME = {route.name: route for route in ROUTES}


def test_a_name_means_one_route():
    assert len(BY_NAME) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_can_be_gone_here_or_under_some_toolchain(route):
    assert route.job is not None or route.here is not None
    if route.job is not None:
        assert route.job.do in worker.JOBS
        assert route.job.ability in ABILITIES
        assert any(route.job.ability in toolchain.routes for toolchain in toolchains())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_control_holds_files_against_those_of_another_route(route):
    assert route.controls is None or BY_NAME[route.controls].form == route.form


def test_what_is_made_here_starts_from_a_network_that_is_trained_here():
    assert {variant.network for _, variant in variants()} <= {spec.id for spec in NETWORKS}
