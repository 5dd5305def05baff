"""A bucket of another cluster as a directory: what is looked at crosses, once."""

import pytest

from clusters import shared_bucket, started
from content import body
from mounts import Mounts

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("mount"), "home", "member") as clusters:
        yield clusters


def test_a_bucket_of_another_cluster_is_a_directory(pair, tmp_path):
    home, member = pair.all["home"], pair.all["member"]
    bucket, large = shared_bucket(home, member), body("large", 32 * MIB)
    small = {f"d{number % 10}/f{number}": body(f"small-{number}", 2000) for number in range(200)}
    with home.raw() as raw:
        for key, data in small.items():
            assert raw.put(bucket, key, data).status == 200
        assert raw.put(bucket, "large", large).status == 200
    mounts = Mounts(tmp_path, member)
    try:
        with member.counting() as crossed:
            at = mounts.mount(bucket)
            assert sorted(path.name for path in at.iterdir()) == [f"d{number}" for number in range(10)] + ["large"]
        # Neither names of other directories nor bodies.
        assert crossed().payload < 64 * KIB, crossed()
        with member.counting() as crossed, open(at / "large", "rb") as file:
            file.seek(9 * MIB)
            assert file.read(MIB) == large[9 * MIB : 10 * MIB]
        assert crossed().payload < 8 * MIB, crossed()
        assert {str(path.relative_to(at)): path.read_bytes() for path in at.glob("d*/*")} == small
        assert (at / "large").read_bytes() == large
        # Another host of the member, whose own cache is empty, asks the member and nobody else.
        with member.counting() as crossed:
            again = mounts.mount(mounts.record["bucket"] + f"@{mounts.record['number']}", cache=tmp_path / "other")
            assert (again / "large").read_bytes() == large
            assert {str(path.relative_to(again)): path.read_bytes() for path in again.glob("d*/*")} == small
        assert crossed().payload < MIB, crossed()
        # What is mounted stays what it was while the home goes on, and when it is away.
        with home.raw() as raw:
            assert raw.put(bucket, "large", b"changed").status == 200
        pair.line(home, member).cut()
        try:
            assert (again / "large").stat().st_size == len(large) and (at / "large").read_bytes() == large
        finally:
            pair.line(home, member).mend()
        member.wait_for_link("home")
        assert (mounts.mount(bucket) / "large").read_bytes() == b"changed"
    finally:
        mounts.end()
