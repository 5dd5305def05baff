"""ListObjects, versions one and two, against a model."""

import itertools
import random
import urllib.parse

import pytest

import checks
from test_objects import refused

ALPHABET = ["a", "b", "/", "-", "é", " "]


@pytest.fixture(scope="module")
def keys():
    """Short keys over a small alphabet: they collide in every way that listings can get wrong."""
    chosen = random.Random(7)
    made = {"".join(chosen.choices(ALPHABET, k=chosen.randint(1, 5))) for _ in range(150)}
    return sorted(made, key=str.encode)


@pytest.fixture
def filled(raw, s3, keys):
    name = checks.new_bucket(raw, "listing")
    for key in keys:
        assert raw.put(name, key, key.encode()).status == 200
    # What was deleted is not listed.
    for key in ("a/deleted", "zz"):
        raw.put(name, key)
        raw.delete(name, key)
    return name


def model(keys, prefix="", delimiter="", after="") -> list:
    """Keys as they are and common prefixes as 1-tuples, in order."""
    found, last = [], None
    for key in keys:
        if not key.startswith(prefix):
            continue
        if delimiter and (at := key.find(delimiter, len(prefix))) >= 0:
            common = key[: at + len(delimiter)]
            # A page that ended with a common prefix goes on after all that is below it.
            if common != last and common.encode() > after.encode() and not after.startswith(common):
                found.append((common,))
            last = common
        elif key.encode() > after.encode():
            found.append(key)
    return found


def items(xml, encoded=True) -> list:
    unquote = urllib.parse.unquote if encoded else lambda text: text
    keys = [unquote(key.text) for key in xml.findall("Contents/Key")]
    prefixes = [(unquote(prefix.text),) for prefix in xml.findall("CommonPrefixes/Prefix")]
    return sorted(keys + prefixes, key=lambda item: (item[0] if isinstance(item, tuple) else item).encode())


def walk(raw, bucket, version, size, **query) -> list:
    """All pages, followed as a client of that version follows them."""
    found, marker = [], {}
    query = {"encoding-type": "url", "max-keys": str(size)} | {k.replace("_", "-"): v for k, v in query.items() if v}
    if version == 2:
        query["list-type"] = "2"
    for _ in range(1000):
        reply = raw.request("GET", raw.path(bucket), query | marker)
        assert reply.status == 200, reply
        page = items(reply.xml)
        assert len(page) <= size
        if version == 2:
            assert int(reply.xml.findtext("KeyCount")) == len(page)
        found += page
        if reply.xml.findtext("IsTruncated") == "false":
            assert reply.xml.find("NextMarker") is None and reply.xml.find("NextContinuationToken") is None
            return found
        if version == 2:
            marker = {"continuation-token": reply.xml.findtext("NextContinuationToken")}
        elif (next_ := reply.xml.findtext("NextMarker")) is not None:
            marker = {"marker": urllib.parse.unquote(next_)}
        else:
            # AWS gives a NextMarker with a delimiter only; without one clients go on after the last key.
            assert "delimiter" not in query and page
            marker = {"marker": page[-1]}
    raise AssertionError("the listing never ends")


@pytest.mark.parametrize("version", [1, 2])
def test_every_page_size(raw, filled, keys, version):
    for size in [*range(1, 20), 50, len(keys) - 1, len(keys), len(keys) + 1, 1000]:
        assert walk(raw, filled, version, size) == keys, size


@pytest.mark.parametrize("version", [1, 2])
def test_prefixes_and_delimiters(raw, filled, keys, version):
    for prefix, delimiter in itertools.product(
        ("", "a", "a/", "/", "//", "é", "none", " "), ("", "/", "a", "//", "-/", "é")
    ):
        expected = model(keys, prefix, delimiter)
        for size in (1, 2, 7, 1000):
            assert walk(raw, filled, version, size, prefix=prefix, delimiter=delimiter) == expected, (
                prefix,
                delimiter,
                size,
            )


def test_start_after_and_marker(raw, filled, keys):
    """start-after and marker are exclusive, need not exist, and may lie inside a common prefix or past the prefix."""
    for after in ("", "a", "a/", "a/zzz", "b", "é", "~", "zzz", keys[10], keys[-1]):
        for prefix, delimiter in (("", ""), ("a", ""), ("", "/"), ("a/", "/")):
            for version, name in ((1, "marker"), (2, "start_after")):
                expected = model(keys, prefix, delimiter, after)
                found = walk(raw, filled, version, 1000, prefix=prefix, delimiter=delimiter, **{name: after})
                loose = [item for item in found if item not in expected]
                # A marker inside a common prefix: AWS shows the prefix again or not by version; both are seen.
                assert all(isinstance(item, tuple) and after.startswith(item[0]) for item in loose), (
                    after,
                    prefix,
                    delimiter,
                    loose,
                )
                assert [item for item in found if item in expected] == expected, (after, prefix, delimiter, version)


def test_max_keys(raw, s3, filled):
    none = raw.request("GET", raw.path(filled), {"list-type": "2", "max-keys": "0"})
    assert none.status == 200 and items(none.xml) == [] and none.xml.findtext("IsTruncated") == "false"
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=100_000)["MaxKeys"] in (1000, 100_000)
    for bad in ("-1", "x", "99999999999999"):
        reply = raw.request("GET", raw.path(filled), {"list-type": "2", "max-keys": bad})
        assert reply.status == 400 and reply.code == "InvalidArgument", (bad, reply)


def test_a_thousand_at_the_most(raw, s3, bucket):
    for number in range(1003):
        raw.put(bucket, f"{number:04}", b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)
    assert page["KeyCount"] == 1000 and page["IsTruncated"]
    assert len(s3.list_objects(Bucket=bucket)["Contents"]) == 1000


def test_an_empty_continuation_token_is_none(raw, filled):
    reply = raw.request("GET", raw.path(filled), {"list-type": "2", "continuation-token": ""})
    assert reply.status == 200 and b"<Key>" in reply.body, reply


@pytest.mark.parametrize("token", ["x", "garbage", "AAAA", "1" * 2000, "../..", "ünicode"])
def test_continuation_tokens_that_are_none(raw, filled, token):
    reply = raw.request("GET", raw.path(filled), {"list-type": "2", "continuation-token": token})
    assert reply.status == 400 and reply.code == "InvalidArgument", reply


def test_tokens_stay_in_their_bucket(raw, s3, filled, bucket):
    """A token of one bucket is no way into another, and harms nothing there."""
    token = s3.list_objects_v2(Bucket=filled, MaxKeys=1)["NextContinuationToken"]
    reply = raw.request("GET", raw.path(bucket), {"list-type": "2", "continuation-token": token})
    assert reply.status in (200, 400), reply
    assert b"<Key>" not in reply.body


def test_fields(s3, raw, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12345", ChecksumAlgorithm="SHA256")["ETag"]
    (found,) = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert found["ETag"] == etag and found["Size"] == 5 and found["StorageClass"] == "STANDARD" and found["Owner"]["ID"]
    assert found.get("ChecksumAlgorithm") == ["SHA256"]
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"] == found["Owner"]["ID"]
    assert found["LastModified"].replace(microsecond=0) == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


def test_a_chain_keeps_its_number(raw, s3, bucket):
    """Later pages show the bucket as the first page found it."""
    for number in range(30):
        raw.put(bucket, f"k{number:02}", b"before")
    first = s3.list_objects_v2(Bucket=bucket, MaxKeys=10)
    raw.put(bucket, "k25", b"something longer")
    raw.put(bucket, "k20-new", b"new")
    raw.delete(bucket, "k29")
    found, token = list(first["Contents"]), first["NextContinuationToken"]
    while token:
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=10, ContinuationToken=token)
        found += page["Contents"]
        token = page.get("NextContinuationToken")
    assert [(item["Key"], item["Size"]) for item in found] == [(f"k{n:02}", 6) for n in range(30)]
    now = [(item["Key"], item["Size"]) for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert ("k20-new", 3) in now and ("k25", 16) in now and ("k29", 6) not in now


def test_unknown_parameters(s3, bucket):
    assert refused(s3.list_objects_v2, Bucket=bucket, EncodingType="base64") == ("InvalidArgument", 400)
