"""Every S3 operation on a linked bucket gives what it gives on a local one.

These are the tests of local buckets, run at a member: what they make are buckets that another cluster numbers.
"""

import pytest

import clusters
import test_conditional_writes
from conftest import boto
from test_conditional_writes import *
from test_keys import *
from test_listing import *
from test_multipart import *
from test_objects import *
from test_snapshots import *
from test_versioning import *

# Names that two of them have.
test_conditional_copy = test_conditional_writes.test_copy
test_conditional_delete_objects = test_conditional_writes.test_delete_objects


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    with clusters.started(tmp_path_factory.mktemp("linked"), "home", "member") as pair:
        pair.all["member"].home = pair.all["home"]
        yield pair.all["member"]


@pytest.fixture
def server(member):
    return member


@pytest.fixture
def http_server(member):
    return member


@pytest.fixture
def s3(member, raw):
    """A client whose buckets are made at the home and linked here."""
    client = boto(member)

    def make(params, **_):
        member.make_bucket(raw, params["auth_path"].strip("/"))
        return _Made(), {}

    client.meta.events.register("before-call.s3.CreateBucket", make)
    return client


class _Made:
    """What botocore takes for an answer."""

    status_code, headers = 200, {}


# Making, ending and collecting buckets is done at their home.
del test_buckets, test_bucket_with_versions_is_not_empty, test_below_the_floor
# Fills a data directory of its own.
del test_pages_that_find_nothing
