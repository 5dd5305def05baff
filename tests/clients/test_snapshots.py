"""Any past state of a bucket reads back: `--at-` buckets, x-elton-at, x-elton-version."""

import datetime
import random
import subprocess
import time
import urllib.parse

import pytest

import checks
from content import body
from raw import Raw, md5
from server import FILL, Server
from test_objects import refused


def alias(bucket, at) -> str:
    return f"{bucket}--at-{at}"


def history(raw, bucket, steps=60, seed=1):
    """Random writes; returns number → {key: body} as of every number that was issued."""
    chosen = random.Random(seed)
    state, states = {}, {}
    for step in range(steps):
        key = chosen.choice(["a", "a/b", "a/", "c d", "é"])
        action = chosen.random()
        if action < 0.6:
            data = body((seed, step), chosen.choice([0, 10, 3000, 70_000]))
            number = raw.put(bucket, key, data).number
            state = state | {key: data}
        elif action < 0.75:
            if key not in state:
                continue
            number = raw.delete(bucket, key).number
            state = {k: v for k, v in state.items() if k != key}
        elif action < 0.9 and key in state:
            target = key + "-copy"
            number = raw.put(
                bucket, target, headers={"x-amz-copy-source": urllib.parse.quote(f"{bucket}/{key}")}
            ).number
            state = state | {target: state[key]}
        else:
            continue
        states[number] = state
    return states


@pytest.mark.parametrize("versioning", ["off", "Enabled", "Suspended"])
def test_every_number_is_a_snapshot(raw, s3, bucket, versioning):
    """Through get, head, both listings, versions, tags and attributes: all show the state as of the number."""
    if versioning != "off":
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    if versioning == "Suspended":
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    states = history(raw, bucket)
    numbers = list(states)
    assert numbers == sorted(set(numbers)), "numbers are not monotone"
    everything = {key for state in states.values() for key in state}
    for number, state in states.items():
        at = alias(bucket, number)
        expected = sorted(state, key=str.encode)
        assert [found["Key"] for found in s3.list_objects_v2(Bucket=at).get("Contents", [])] == expected
        assert [found["Key"] for found in s3.list_objects(Bucket=at).get("Contents", [])] == expected
        live = [found["Key"] for found in s3.list_object_versions(Bucket=at).get("Versions", []) if found["IsLatest"]]
        assert live == expected
        for key in everything:
            reply = raw.get(at, key)
            if key in state:
                assert reply.status == 200 and reply.body == state[key], (number, key)
                assert reply.number <= number
                assert int(raw.head(at, key).headers["content-length"]) == len(state[key])
            else:
                assert reply.status == 404, (number, key, reply)
    assert raw.request("HEAD", raw.path(alias(bucket, numbers[-1]))).status == 200


def test_pages_of_a_snapshot(s3, raw, bucket):
    for number in range(50):
        last = raw.put(bucket, f"d{number % 5}/k{number:02}", b"x").number
    for number in range(50):
        raw.delete(bucket, f"d{number % 5}/k{number:02}")
    at = alias(bucket, last)
    for size in (1, 7, 50, 1000):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=at, PaginationConfig={"PageSize": size})
        assert len([found for page in pages for found in page.get("Contents", [])]) == 50
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=at, Delimiter="/", PaginationConfig={"PageSize": size}
        )
        assert [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])] == [f"d{n}/" for n in range(5)]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_pages_that_find_nothing(tmp_path):
    """A page of the past looks at a bounded number of rows, may be empty, and says where to go on all the same."""
    keys = 120_000
    subprocess.run([FILL, tmp_path / "data", "many", str(keys)], check=True, timeout=120)
    with Server(tmp_path / "data") as server, Raw(server, timeout=20) as raw:
        full = raw.put("many", "zzz", b"last").number
        for at in range(0, keys, 1000):
            listed = "".join(f"<Object><Key>{n // 1000:03}/{n:07}</Key></Object>" for n in range(at, at + 1000))
            document = f"<Delete><Quiet>true</Quiet>{listed}</Delete>".encode()
            reply = raw.request("POST", raw.path("many"), {"delete": ""}, {"content-md5": md5(document)}, document)
            assert reply.status == 200, reply
        for name in ("many", alias("many", reply.number)):
            for version in ("1", "2"):
                found, marker = [], {}
                for _ in range(50):
                    began = time.monotonic()
                    page = raw.request(
                        "GET", raw.path(name), {"list-type": version} | marker if version == "2" else marker
                    )
                    assert page.status == 200 and time.monotonic() - began < 5, page
                    found += [key.text for key in page.xml.iter("Key")]
                    if page.xml.findtext("IsTruncated") == "false":
                        break
                    field = "NextContinuationToken" if version == "2" else "NextMarker"
                    marker = {"continuation-token" if version == "2" else "marker": page.xml.findtext(field)}
                assert found == ["zzz"], (name, version)
        # Past common prefixes a listing seeks instead of walking.
        began = time.monotonic()
        page = raw.request("GET", raw.path(alias("many", full)), {"delimiter": "/"})
        assert len(page.xml.findall("CommonPrefixes")) == keys // 1000 and time.monotonic() - began < 1


def test_tags_are_as_of_the_number(s3, raw, bucket):
    """A version's tags are numbered changes: newest where the version is named, as of N in a snapshot."""
    before = raw.put(bucket, "k", b"x", {"x-amz-tagging": "a=1"}).number
    changed = s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "2"}]})
    after = int(changed["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"])
    assert after > before
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    tags = lambda name: {t["Key"]: t["Value"] for t in s3.get_object_tagging(Bucket=name, Key="k")["TagSet"]}
    assert tags(alias(bucket, before)) == {"a": "1"} and tags(alias(bucket, after)) == {"a": "2"} and tags(bucket) == {}
    assert raw.get(alias(bucket, before), "k").headers["x-amz-tagging-count"] == "1"


def test_every_write_says_its_number(s3, raw, bucket):
    """x-elton-version is on every reply to a write and rises by one each time."""
    numbers = []
    note = lambda reply: numbers.append(int(reply["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]))
    note(s3.put_object(Bucket=bucket, Key="k", Body=b"x"))
    note(s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k"}))
    note(s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}]}))
    note(s3.delete_object_tagging(Bucket=bucket, Key="k"))
    note(s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]}))
    note(s3.delete_bucket_tagging(Bucket=bucket))
    note(s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}))
    numbers.append(raw.multipart(bucket, "m", [b"part"]).number)
    note(s3.delete_object(Bucket=bucket, Key="k"))
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "c"}, {"Key": "m"}]})
    assert int(deleted["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]) == numbers[-1] + 2
    # Parts and uploads are no changes.
    begun = raw.request("POST", raw.path(bucket, "u"), {"uploads": ""}).xml.findtext("UploadId")
    raw.request("PUT", raw.path(bucket, "u"), {"partNumber": "1", "uploadId": begun}, body=b"x")
    raw.delete(bucket, "u", {"uploadId": begun})
    assert raw.put(bucket, "last").number == numbers[-1] + 3


def test_reads_say_their_number(raw, bucket):
    number = raw.put(bucket, "k", b"x").number
    raw.put(bucket, "other", b"x")
    assert raw.get(bucket, "k").number == raw.head(bucket, "k").number == number


def test_by_time(raw, bucket):
    """The last change not later than the time; a whole second means its end."""
    raw.put(bucket, "k", b"first")
    _next_second()
    between = datetime.datetime.now(datetime.UTC)
    _next_second()
    raw.put(bucket, "k", b"second")
    _next_second()
    now = datetime.datetime.now(datetime.UTC)
    for spelling in ("%Y%m%dt%H%M%Sz", "%Y-%m-%dt%H:%M:%Sz"):
        for moment, expected in ((between, b"first"), (now, b"second")):
            reply = raw.get(alias(bucket, moment.strftime(spelling)), "k")
            assert reply.status == 200 and reply.body == expected, (moment, reply)
    assert raw.get(bucket, "k", headers={"x-elton-at": between.strftime("%Y-%m-%dT%H:%M:%SZ")}).body == b"first"
    long_ago = raw.get(alias(bucket, "20200101t000000z"), "k")
    assert long_ago.status == 404, long_ago
    assert refused_code(raw.get(alias(bucket, "20201341t000000z"), "k")) in (
        (400, "InvalidBucketName"),
        (404, "NoSuchBucket"),
    )


def refused_code(reply):
    return reply.status, reply.code


def _next_second():
    """Times in names have whole seconds: wait for the next one."""
    time.sleep(1.02 - time.time() % 1)


def test_by_tag(server, raw, bucket):
    raw.put(bucket, "k", b"before")
    checks.command(server, "snapshot", "create", bucket, "--tag", "before-upgrade")
    raw.put(bucket, "k", b"after")
    assert raw.get(alias(bucket, "before-upgrade"), "k").body == b"before"
    assert raw.get(bucket, "k", headers={"x-elton-at": "before-upgrade"}).body == b"before"
    assert raw.get(alias(bucket, "no-such-tag"), "k").status == 404


def test_header_says_the_same_as_the_name(raw, bucket):
    number = raw.put(bucket, "k", b"before").number
    raw.put(bucket, "k", b"after")
    raw.put(bucket, "later", b"x")
    at = {"x-elton-at": str(number)}
    assert raw.get(bucket, "k", headers=at).body == b"before"
    assert raw.head(bucket, "k", headers=at).number == number
    for query in ({}, {"list-type": "2"}, {"versions": ""}):
        listing = raw.request("GET", raw.path(bucket), query, at)
        assert [key.text for key in listing.xml.iter("Key")] == ["k"], query
    # In a presigned URL it is signed as a header.
    assert raw.presigned("GET", raw.path(bucket, "k"), headers=at).body == b"before"
    for bad in ("", "no snapshot", "-1", "1.5", "A"):
        assert raw.get(bucket, "k", headers={"x-elton-at": bad}).status == 400, bad


def test_header_counts_only_when_signed(raw, bucket):
    number = raw.put(bucket, "k", b"before").number
    raw.put(bucket, "k", b"after")
    for header in ({"x-elton-at": str(number)}, {"x-elton-consistency": "available"}, {"x-elton-anything": "x"}):
        reply = raw.get(bucket, "k", unsigned=header)
        assert (reply.status, reply.code) == (403, "AccessDenied") and "signed" in reply.message, reply
        reply = raw.presigned("GET", raw.path(bucket, "k"), extra=header)
        assert (reply.status, reply.code) == (403, "AccessDenied"), reply


def test_consistency_of_a_local_bucket(raw, bucket):
    raw.put(bucket, "k", b"x")
    for value in ("strong", "available", "bounded=5"):
        assert raw.get(bucket, "k", headers={"x-elton-consistency": value}).status == 200, value
    for value in ("weak", "bounded", "bounded=x", ""):
        assert raw.get(bucket, "k", headers={"x-elton-consistency": value}).status == 400, value


def test_numbers_that_are_none(raw, bucket):
    newest = raw.put(bucket, "k", b"x").number
    for number in (newest + 1, 10**12 + 1, 2**64 - 1, 2**64, 10**30):
        reply = raw.get(alias(bucket, number), "k")
        assert reply.status in (400, 404), reply
    assert raw.get(alias("no-such-bucket-here", 1), "k").status == 404


def test_below_the_floor(server, raw, bucket):
    """A number that the collector ended is refused with the floor in the message, never shown with holes."""
    checks.command(server, "bucket", "set", bucket, "--keep", "0")
    numbers = [raw.put(bucket, "k", b"%d" % n).number for n in range(5)]
    assert raw.get(alias(bucket, numbers[0]), "k").body == b"0"
    # `--now` for this bucket only would be kinder to other tests; the rule of this bucket says the same.
    checks.command(server, "gc")
    for number in numbers[:-1]:
        for reply in (raw.get(alias(bucket, number), "k"), raw.request("GET", raw.path(alias(bucket, number)))):
            assert 400 <= reply.status < 500 and str(numbers[-1]) in reply.message, reply
    assert raw.get(alias(bucket, numbers[-1]), "k").body == b"4"
    assert raw.get(bucket, "k").body == b"4"


def test_snapshots_are_read_only(raw, s3, bucket):
    number = raw.put(bucket, "k", b"x").number
    at = alias(bucket, number)
    begun = raw.request("POST", raw.path(bucket, "u"), {"uploads": ""}).xml.findtext("UploadId")
    tagging = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
    delete = b"<Delete><Object><Key>k</Key></Object></Delete>"
    writes = [
        ("PUT", "k", {}, {}, b"new"),
        ("DELETE", "k", {}, {}, b""),
        ("POST", None, {"delete": ""}, {"content-md5": md5(delete)}, delete),
        ("PUT", "copy", {}, {"x-amz-copy-source": f"{bucket}/k"}, b""),
        ("PUT", "k", {"tagging": ""}, {}, tagging),
        ("DELETE", "k", {"tagging": ""}, {}, b""),
        ("POST", "u", {"uploads": ""}, {}, b""),
        ("PUT", "u", {"partNumber": "1", "uploadId": begun}, {}, b"part"),
        ("DELETE", "u", {"uploadId": begun}, {}, b""),
        (
            "POST",
            "u",
            {"uploadId": begun},
            {},
            b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>",
        ),
        (
            "PUT",
            None,
            {"versioning": ""},
            {},
            b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
        ),
        ("PUT", None, {"tagging": ""}, {}, tagging),
        ("DELETE", None, {"tagging": ""}, {}, b""),
        ("DELETE", None, {}, {}, b""),
    ]
    for method, key, query, headers, data in writes:
        for reply in (
            raw.request(method, raw.path(at, key), query, headers, data),
            raw.request(method, raw.path(bucket, key), query, headers | {"x-elton-at": str(number)}, data),
        ):
            assert (reply.status, reply.code) == (403, "AccessDenied"), (method, key, query, reply)
            assert "snapshot" in reply.message, reply
    assert raw.put(bucket, "next").number == number + 1
    assert at not in [found["Name"] for found in s3.list_buckets()["Buckets"]]


def test_copy_out_of_a_snapshot(s3, raw, bucket):
    number = raw.put(bucket, "k", b"before").number
    raw.delete(bucket, "k")
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k"})[1] in (400, 404)
    s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": alias(bucket, number), "Key": "k"})
    assert raw.get(bucket, "k").body == b"before"


def test_long_aliases(raw):
    """An alias may be longer than a bucket's name."""
    name = "x" * 63
    assert raw.request("PUT", raw.path(name)).status in (200, 409)
    number = raw.put(name, "k", b"x").number
    assert raw.get(alias(name, number), "k").body == b"x"
    assert raw.request("GET", raw.path(alias(name, number)), {"list-type": "2"}).status == 200


def test_bucket_reads_of_a_snapshot(s3, raw, bucket):
    """Configuration is numbered too."""
    before = raw.put(bucket, "k", b"x").number
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    after = raw.put(bucket, "k", b"y").number
    assert "Status" not in s3.get_bucket_versioning(Bucket=alias(bucket, before))
    assert s3.get_bucket_versioning(Bucket=alias(bucket, after))["Status"] == "Enabled"
    assert refused(s3.get_bucket_tagging, Bucket=alias(bucket, before)) == ("NoSuchTagSet", 404)
    assert s3.get_bucket_tagging(Bucket=alias(bucket, after))["TagSet"]
    assert s3.get_bucket_location(Bucket=alias(bucket, before))["LocationConstraint"] is None


def test_object_reads_of_a_snapshot(s3, raw, bucket):
    """Ranges, part numbers, conditions, attributes and checksums work there as anywhere."""
    data = body("snapshot", 5 << 20)
    number = raw.multipart(bucket, "k", [data, b"end"]).number
    raw.put(bucket, "k", b"else")
    at = alias(bucket, number)
    assert raw.get(at, "k", headers={"range": f"bytes={(5 << 20) - 2}-"}).body == data[-2:] + b"end"
    assert raw.get(at, "k", {"partNumber": "2"}).body == b"end"
    etag = raw.head(at, "k").headers["etag"]
    assert raw.get(at, "k", headers={"if-none-match": etag}).status == 304
    found = s3.get_object_attributes(Bucket=at, Key="k", ObjectAttributes=["ObjectSize", "ObjectParts", "ETag"])
    assert found["ObjectSize"] == len(data) + 3 and found["ObjectParts"]["TotalPartsCount"] == 2


def test_numbers_never_meet_twice(http_server):
    checks.numbers_are_unique(http_server)


def test_tags_keep_their_snapshot(own_server):
    checks.tags_keep_their_snapshot(own_server.start())
