"""aws, rclone and boto3 against three clusters at once, each its own, on the same buckets."""

import concurrent.futures
import json
import subprocess
import sys

import pytest

from clusters import shared_bucket, started
from conftest import boto
from content import body, digests, source_tree
from test_rclone import rclone

AWS = f"{sys.prefix}/bin/aws"


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    with started(tmp_path_factory.mktemp("clients"), "a", "b", "c") as clusters:
        yield list(clusters.all.values())


def aws(server, *arguments):
    done = subprocess.run(
        [AWS, *map(str, arguments)], env=server.client_env(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"aws {arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_three_clients_at_three_clusters(trio, tmp_path):
    """Each writes at its own cluster what the other two read at theirs; all at the same time, on a bucket of each."""
    buckets = [shared_bucket(home, *(cluster for cluster in trio if cluster is not home)) for home in trio]
    tree = source_tree(tmp_path / "tree", 100)
    expected = digests(tree)

    def with_aws(bucket):
        aws(trio[0], "s3", "sync", "--only-show-errors", tree, f"s3://{bucket}/aws/")

    def with_rclone(bucket):
        work = tmp_path / f"rclone-{bucket}"
        work.mkdir()
        rclone(trio[1], work, "copy", tree, f"e:{bucket}/rclone")

    def with_boto(bucket):
        s3 = boto(trio[2])
        for path in expected:
            s3.upload_file(str(tree / path), bucket, f"boto/{path}")

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        running = [pool.submit(work, bucket) for bucket in buckets for work in (with_aws, with_rclone, with_boto)]
        for done in running:
            done.result()

    def read_with_aws(bucket):
        back = tmp_path / f"back-{bucket}"
        aws(trio[0], "s3", "sync", "--only-show-errors", f"s3://{bucket}/boto/", back)
        assert digests(back) == expected

    def read_with_rclone(bucket):
        work = tmp_path / f"rclone-{bucket}"
        rclone(trio[1], work, "check", "--download", tree, f"e:{bucket}/aws")

    def read_with_boto(bucket):
        s3 = boto(trio[2])
        paged = s3.get_paginator("list_objects_v2")
        pages = paged.paginate(Bucket=bucket, Prefix="rclone/", PaginationConfig={"PageSize": 40})
        keys = [found["Key"] for page in pages for found in page["Contents"]]
        assert sorted(keys) == sorted(f"rclone/{path}" for path in expected)
        for key in keys[::5]:
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == (tree / key[7:]).read_bytes()

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        reading = (read_with_aws, read_with_rclone, read_with_boto)
        running = [pool.submit(work, bucket) for bucket in buckets for work in reading]
        for done in running:
            done.result()


def test_a_large_file_from_one_client_to_another(trio, tmp_path):
    """Uploaded in parts with aws at one member, read with rclone at another one and with boto3 at home."""
    a, b, c = trio
    bucket = shared_bucket(a, b, c)
    data = body("large", 40 << 20)
    (tmp_path / "large").write_bytes(data)
    aws(b, "s3", "cp", "--only-show-errors", tmp_path / "large", f"s3://{bucket}/large")
    back = tmp_path / "back"
    rclone(c, tmp_path, "copyto", f"e:{bucket}/large", back)
    assert back.read_bytes() == data
    boto(a).download_file(bucket, "large", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == data


def test_linked_buckets_are_listed_among_the_own_ones(trio):
    a, b, _ = trio
    bucket = shared_bucket(a, b)
    own = shared_bucket(b)
    names = {found["Name"] for found in json.loads(aws(b, "s3api", "list-buckets", "--output", "json"))["Buckets"]}
    assert {bucket, own} <= names
