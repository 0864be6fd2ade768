"""The clusters, each started when a test first asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.ceph_cluster import ceph_cluster
from support.clusters import Cluster
from support.seaweedfs_cluster import seaweedfs_cluster


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[Cluster]:
    with seaweedfs_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ceph() -> Iterator[Cluster]:
    with ceph_cluster() as cluster:
        yield cluster
