"""S3 versioning in its three states."""

import itertools
import random

import pytest
from botocore.exceptions import ClientError

from test_objects import refused


def set_status(s3, bucket, status):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def shown(s3, bucket, **options):
    """All versions and markers as ListObjectVersions orders them: (key, version, is marker, is latest)."""
    found = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **options):
        versions = [
            (v["Key"], v["VersionId"], False, v["IsLatest"], v["LastModified"]) for v in page.get("Versions", [])
        ]
        markers = [
            (m["Key"], m["VersionId"], True, m["IsLatest"], m["LastModified"]) for m in page.get("DeleteMarkers", [])
        ]
        found += versions + markers
    return found


def test_off(s3, bucket):
    """Never enabled: no version ids anywhere, `null` in listings, and `null` is the only id that is accepted."""
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    number = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]
    assert "VersionId" not in s3.get_object(Bucket=bucket, Key="k")
    assert [(v[0], v[1]) for v in shown(s3, bucket)] == [("k", "null")]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"2"
    for wrong in (number, "1", "garbage", "9" * 30):
        assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId=wrong)[1] in (400, 404), wrong
    s3.delete_object(Bucket=bucket, Key="k")
    assert shown(s3, bucket) == []


def test_enabled(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"null")
    set_status(s3, bucket, "Enabled")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=str(n).encode())["VersionId"] for n in range(3)]
    assert all(version.isdigit() for version in ids) and ids == sorted(ids, key=int)
    for number, version in enumerate(ids):
        found = s3.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert found["Body"].read() == str(number).encode() and found["VersionId"] == version
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"null"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    with pytest.raises(ClientError) as gone:
        s3.get_object(Bucket=bucket, Key="k")
    headers = gone.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert gone.value.response["Error"]["Code"] == "NoSuchKey" and headers["x-amz-delete-marker"] == "true"
    assert headers["x-amz-version-id"] == marker["VersionId"]
    with pytest.raises(ClientError) as named:
        s3.get_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert named.value.response["Error"]["Code"] == "MethodNotAllowed"
    assert named.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    assert refused(s3.head_object, Bucket=bucket, Key="k", VersionId=marker["VersionId"])[1] == 405
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    # Taking the marker away brings the newest version back; taking that away the one before.
    undone = s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert undone["DeleteMarker"] is True and undone["VersionId"] == marker["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"
    removed = s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[2])
    assert removed["VersionId"] == ids[2] and "DeleteMarker" not in removed
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    assert [v[1] for v in shown(s3, bucket)] == [ids[1], ids[0], "null"]
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId=ids[2]) == ("NoSuchVersion", 404)
    # Deleting a version that is not there is no error, and neither is deleting what never was: it makes a marker.
    s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[2])
    assert s3.delete_object(Bucket=bucket, Key="never")["DeleteMarker"] is True


def test_suspended(s3, bucket):
    set_status(s3, bucket, "Enabled")
    kept = s3.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    set_status(s3, bucket, "Suspended")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Suspended"
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"first null")
    assert first.get("VersionId") in (None, "null")
    s3.put_object(Bucket=bucket, Key="k", Body=b"second null")
    assert [v[1] for v in shown(s3, bucket)] == ["null", kept]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second null"
    # A delete replaces the null version by a null marker.
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True and marker["VersionId"] == "null"
    assert sorted((v[1], v[2]) for v in shown(s3, bucket)) == sorted([("null", True), (kept, False)])
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=kept)["Body"].read() == b"kept"
    set_status(s3, bucket, "Enabled")
    newest = s3.put_object(Bucket=bucket, Key="k", Body=b"newest")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert [v[1] for v in shown(s3, bucket)] == [newest, kept]


def test_versioning_cannot_be_switched_off(raw, versioned):
    for status in ("Disabled", "Off", ""):
        document = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>".encode()
        reply = raw.request("PUT", raw.path(versioned), {"versioning": ""}, body=document)
        assert reply.status == 400, reply
    document = (
        b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"
    )
    assert raw.request("PUT", raw.path(versioned), {"versioning": ""}, body=document).status in (400, 501)


def test_bucket_with_versions_is_not_empty(s3, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"")
    s3.delete_object(Bucket=versioned, Key="k")
    assert refused(s3.delete_bucket, Bucket=versioned) == ("BucketNotEmpty", 409)
    for key, version, *_ in shown(s3, versioned):
        s3.delete_object(Bucket=versioned, Key=key, VersionId=version)
    s3.delete_bucket(Bucket=versioned)


def test_delete_objects_with_versions(s3, versioned):
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"] for _ in range(3)]
    objects = [{"Key": "k", "VersionId": ids[0]}, {"Key": "k"}, {"Key": "new"}]
    deleted = s3.delete_objects(Bucket=versioned, Delete={"Objects": objects})["Deleted"]
    by_kind = {(d["Key"], d.get("VersionId")): d for d in deleted}
    assert (
        ("k", ids[0]) in by_kind
        and by_kind["k", None]["DeleteMarker"]
        and by_kind["new", None]["DeleteMarkerVersionId"]
    )
    assert len(shown(s3, versioned)) == 4


def test_copies_and_tags_of_versions(s3, versioned):
    ids = [
        s3.put_object(Bucket=versioned, Key="k", Body=str(n).encode(), Tagging=f"n={n}")["VersionId"] for n in range(2)
    ]
    source = {"Bucket": versioned, "Key": "k", "VersionId": ids[0]}
    copied = s3.copy_object(Bucket=versioned, Key="old", CopySource=source)
    assert copied["CopySourceVersionId"] == ids[0] and copied["VersionId"]
    assert s3.get_object(Bucket=versioned, Key="old")["Body"].read() == b"0"
    s3.put_object_tagging(
        Bucket=versioned, Key="k", VersionId=ids[0], Tagging={"TagSet": [{"Key": "n", "Value": "changed"}]}
    )
    tags = lambda version: s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=version)["TagSet"][0]["Value"]
    assert (tags(ids[0]), tags(ids[1])) == ("changed", "1")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    assert refused(s3.get_object_tagging, Bucket=versioned, Key="k", VersionId=marker) == ("MethodNotAllowed", 405)
    assert refused(s3.copy_object, Bucket=versioned, Key="x", CopySource={**source, "VersionId": marker})[1] in (
        400,
        404,
        405,
    )


def test_versions_and_markers_are_interleaved(raw, s3, versioned):
    """mc and others rely on the order on the wire: by key, then newest first, markers in their places."""
    for key in ("a", "b"):
        s3.put_object(Bucket=versioned, Key=key, Body=b"1")
        s3.delete_object(Bucket=versioned, Key=key)
        s3.put_object(Bucket=versioned, Key=key, Body=b"2")
    root = raw.request("GET", raw.path(versioned), {"versions": ""}).xml
    kinds = [
        (item.tag, item.findtext("Key"), item.findtext("IsLatest"))
        for item in root
        if item.tag in ("Version", "DeleteMarker")
    ]
    assert kinds == [
        (kind, key, latest)
        for key in ("a", "b")
        for kind, latest in (("Version", "true"), ("DeleteMarker", "false"), ("Version", "false"))
    ]


KEYS = ["a", "a/", "a/b", "a/b/c", "a-b", "b", "b//", "b//x", "é", "😀"]


class Model:
    """What S3 says of versions: key → versions, newest first."""

    def __init__(self):
        self.versions = {}

    def write(self, key, version, marker, modified_order):
        kept = self.versions.setdefault(key, [])
        if version == "null":
            kept[:] = [entry for entry in kept if entry[0] != "null"]
        kept.insert(0, (version, marker))

    def remove(self, key, version):
        self.versions[key] = [entry for entry in self.versions.get(key, []) if entry[0] != version]

    def listing(self, prefix="", delimiter=None):
        """(key, version, marker, latest) and common prefixes, in order."""
        seen = set()
        for key in sorted(self.versions, key=str.encode):
            if not self.versions[key] or not key.startswith(prefix):
                continue
            if delimiter and (at := key.find(delimiter, len(prefix))) >= 0:
                common = key[: at + len(delimiter)]
                if common not in seen:
                    seen.add(common)
                    yield common
                continue
            for index, (version, marker) in enumerate(self.versions[key]):
                yield key, version, marker, index == 0


def random_history(s3, bucket, seed, steps) -> Model:
    random_ = random.Random(seed)
    model = Model()
    status = "Off"
    for step in range(steps):
        key = random_.choice(KEYS)
        action = random_.random()
        if action < 0.05:
            status = random_.choice(["Enabled", "Suspended"])
            set_status(s3, bucket, status)
        elif action < 0.65:
            version = s3.put_object(Bucket=bucket, Key=key, Body=str(step).encode()).get("VersionId", "null")
            assert (version == "null") == (status != "Enabled")
            model.write(key, version, False, step)
        elif action < 0.85:
            deleted = s3.delete_object(Bucket=bucket, Key=key)
            if status == "Off":
                model.remove(key, "null")
            else:
                model.write(key, deleted["VersionId"], True, step)
        elif kept := model.versions.get(key):
            version = random_.choice(kept)[0]
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
            model.remove(key, version)
    return model


def wire_listing(raw, bucket, size, **query):
    """Every page of ?versions, in the order of the wire, followed as clients follow it."""
    found, markers = [], {}
    for _ in range(1000):
        reply = raw.request("GET", raw.path(bucket), {"versions": "", "max-keys": str(size)} | query | markers)
        assert reply.status == 200, reply
        page = 0
        prefixes = []
        for item in reply.xml:
            if item.tag in ("Version", "DeleteMarker"):
                found.append(
                    (
                        item.findtext("Key"),
                        item.findtext("VersionId"),
                        item.tag == "DeleteMarker",
                        item.findtext("IsLatest") == "true",
                    )
                )
                page += 1
            elif item.tag == "CommonPrefixes":
                prefixes.append(item.findtext("Prefix"))
                page += 1
        found += prefixes
        assert page <= size
        if reply.xml.findtext("IsTruncated") != "true":
            return found
        markers = {"key-marker": reply.xml.findtext("NextKeyMarker")}
        if (version := reply.xml.findtext("NextVersionIdMarker")) is not None:
            markers["version-id-marker"] = version
    raise AssertionError("the listing never ends")


@pytest.mark.parametrize("seed", range(3))
def test_listing_versions_against_a_model(s3, raw, bucket, seed):
    """At every page size, with and without prefix and delimiter."""
    model = random_history(s3, bucket, seed, 120)
    expected = list(model.listing())
    for size in [*range(1, len(expected) + 2), 1000]:
        assert wire_listing(raw, bucket, size) == expected, size
    for prefix, delimiter in itertools.product(("", "a", "a/", "b//", "none"), ("/", "b", "//")):
        expected = sorted(map(str, model.listing(prefix, delimiter)))
        for size in (1, 2, 3, 5, 1000):
            query = {"prefix": prefix, "delimiter": delimiter}
            assert sorted(map(str, wire_listing(raw, bucket, size, **query))) == expected, (query, size)
    for key, versions in model.versions.items():
        for version, marker in versions:
            status = raw.get(bucket, key, {"versionId": version}).status
            assert status == (405 if marker else 200), (key, version, marker)
        live = bool(versions) and not versions[0][1]
        assert raw.head(bucket, key).status == (200 if live else 404)
