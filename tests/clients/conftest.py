"""Fixtures that all client tests share: servers, clients and buckets."""

import itertools
import os
import subprocess

import boto3
import botocore.config
import pytest

from mounts import Mounts
from raw import Raw
from server import ACCESS_KEY, SECRET_KEY, Server

# The longest first, so that two workers end together.
LONG_FILES = (
    "test_aws_cli.py",
    "test_federation_s3.py",
    "test_docker_plugin.py",
    "test_mount_debian.py",
    "test_sigkill.py",
    "test_trouble.py",
    "test_space.py",
    "test_rclone.py",
    "test_controls.py",
    "test_federation_docker.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


def parameter(name: str, default: int) -> int:
    """A loop count that `./tests/run --long` or the caller raises."""
    return int(os.environ.get(f"ELTON_TEST_{name}", default))


def boto(server: Server, **options):
    """A boto3 client as its documentation says to make one, but without retries: they would hide what we look for."""
    config = botocore.config.Config(
        retries={"total_max_attempts": 1}, max_pool_connections=64, s3={"addressing_style": "path"}, **options
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        verify=str(server.certificate) if server.tls else None,
        config=config,
    )


@pytest.fixture(scope="session", autouse=True)
def _own_environment():
    """Nothing of the caller's AWS configuration reaches a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            foreign = name.startswith(("AWS_", "BOTO")) or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
            if foreign or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
                patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def http_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("http") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def https_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("https") / "data", tls=True) as server:
        yield server


@pytest.fixture(params=["http", "https"])
def server(request) -> Server:
    """A running server, once over each scheme: over HTTPS today's clients send trailers instead of headers."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def own_server(tmp_path):
    """A server of the test's own, to be broken."""
    server = Server(tmp_path / "data")
    yield server
    server.end()


@pytest.fixture
def s3(server):
    return boto(server)


@pytest.fixture
def raw(server):
    with Raw(server) as raw:
        yield raw


_names = itertools.count(1)


def bucket_name(word="test") -> str:
    return f"{word}-{os.getpid()}-{next(_names)}"


@pytest.fixture
def bucket(s3) -> str:
    name = bucket_name()
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def versioned(s3, bucket) -> str:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


@pytest.fixture
def mount(tmp_path):
    """Mounts what it is told to and unmounts it whatever happens: `mount(*arguments) -> path`."""
    mounted = []

    def mount(*arguments):
        path = tmp_path / f"mount-{len(mounted)}"
        path.mkdir()
        subprocess.run(["mount", *arguments, str(path)], check=True, capture_output=True)
        mounted.append(path)
        return path

    yield mount
    for path in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(path)], check=False)


@pytest.fixture
def mounts(http_server, tmp_path):
    """The mounts of a host, which end with the test."""
    mounts = Mounts(tmp_path, http_server)
    yield mounts
    mounts.end()
