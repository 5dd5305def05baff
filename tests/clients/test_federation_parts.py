"""An object of more parts than a page or a record has, as its home and a member show it: the same, part by part."""

import concurrent.futures
import hashlib

import pytest

from clusters import bucket_name, shared_bucket, started
from conftest import boto
from content import body
from mounts import Mounts
from test_multipart import complete
from test_objects import refused

MIB = 1 << 20
PARTS = 130
PAGE = 40
# What the parts are copied from, by reference: an object of 650 MiB weighs 15 MiB.
SOURCES = {f"source-{number}": body(("part", number), 5 * MIB + number * 4097) for number in range(3)}
NAMES = [f"source-{number % 3}" for number in range(PARTS - 1)]
LAST = body("last", 12_345)
SEEN = [SOURCES[name] for name in NAMES] + [LAST]
STARTS = [sum(map(len, SEEN[:number])) for number in range(PARTS + 1)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("parts"), "home", "member") as clusters:
        yield clusters


@pytest.fixture(scope="module", params=["home", "member"])
def written(request, pair):
    """The bucket, where the object was written, and what was said of its upload before it was completed."""
    bucket, s3 = shared_bucket(pair.all["home"], pair.all["member"], name=bucket_name("parts")), boto(pair.all[request.param])
    for name, content in SOURCES.items():
        s3.put_object(Bucket=bucket, Key=name, Body=content)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32")["UploadId"]
    here = {"Bucket": bucket, "Key": "k", "UploadId": upload}

    def copy(number):
        source = {"Bucket": bucket, "Key": NAMES[number - 1]}
        made = s3.upload_part_copy(**here, PartNumber=number, CopySource=source)["CopyPartResult"]
        return {"PartNumber": number, "ETag": made["ETag"], "ChecksumCRC32": made["ChecksumCRC32"]}

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(copy, range(1, PARTS)))
    made = s3.upload_part(**here, PartNumber=PARTS, Body=LAST, ChecksumAlgorithm="CRC32")
    parts.append({"PartNumber": PARTS, "ETag": made["ETag"], "ChecksumCRC32": made["ChecksumCRC32"]})
    pages = list(s3.get_paginator("list_parts").paginate(**here, PaginationConfig={"PageSize": PAGE}))
    done = complete(s3, bucket, "k", upload, parts)
    return bucket, request.param, pages, parts, done


def test_an_upload_is_listed_by_pages(written):
    _, _, pages, parts, _ = written
    assert [len(page["Parts"]) for page in pages] == [PAGE, PAGE, PAGE, PARTS - 3 * PAGE]
    assert [page["IsTruncated"] for page in pages] == [True, True, True, False]
    listed = [part for page in pages for part in page["Parts"]]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(n, len(SEEN[n - 1])) for n in range(1, PARTS + 1)]
    assert [{name: part[name] for name in parts[0]} for part in listed] == parts


def shown(cluster, bucket) -> dict:
    """All that boto3 hears of the object and of its parts, without what is said of the request."""
    s3, here = boto(cluster), {"Bucket": bucket, "Key": "k"}

    def plain(reply):
        return {name: value for name, value in reply.items() if name not in ("ResponseMetadata", "Body")}

    def attributes(**options):
        return plain(s3.get_object_attributes(**here, ObjectAttributes=["ETag", "Checksum", "ObjectParts", "ObjectSize"], **options))

    found, marker = {"head": plain(s3.head_object(**here, ChecksumMode="ENABLED")), "all": attributes(), "pages": []}, 0
    while True:
        page = attributes(MaxParts=PAGE, PartNumberMarker=marker)
        found["pages"].append(page)
        if not page["ObjectParts"]["IsTruncated"]:
            break
        marker = page["ObjectParts"]["NextPartNumberMarker"]
    for number in range(1, PARTS + 1):
        found[number] = plain(s3.head_object(**here, PartNumber=number, ChecksumMode="ENABLED"))
    for number in (1, 2, 100, 101, PARTS):
        got = s3.get_object(**here, PartNumber=number)
        found[f"body {number}"] = plain(got) | {"body": hashlib.sha256(got["Body"].read()).hexdigest()}
    for start, end in ranges():
        got = s3.get_object(**here, Range=f"bytes={start}-{end - 1}")
        found[f"range {start}"] = plain(got) | {"body": hashlib.sha256(got["Body"].read()).hexdigest()}
    found["beyond"] = refused(s3.get_object, **here, PartNumber=PARTS + 1)
    found["listed"] = plain(s3.list_objects_v2(Bucket=bucket, Prefix="k"))
    return found


def ranges():
    """Across seams: of two parts, of three, and to the end."""
    return (STARTS[1] - 10, STARTS[1] + 10), (STARTS[99] - 1, STARTS[100] + 1), (STARTS[-2] - 70_000, STARTS[-1])


def content(start, end) -> bytes:
    pieces = (part[max(0, start - at) : max(0, end - at)] for at, part in zip(STARTS, SEEN))
    return b"".join(pieces)


def test_home_and_member_show_the_same(pair, written):
    bucket, writer, _, parts, done = written
    home, member = (shown(pair.all[name], bucket) for name in ("home", "member"))
    for name in home:
        assert home[name] == member[name], name
    described = member["all"]["ObjectParts"]
    assert described["TotalPartsCount"] == PARTS and described["IsTruncated"] is False
    assert [len(page["ObjectParts"]["Parts"]) for page in member["pages"]] == [PAGE, PAGE, PAGE, PARTS - 3 * PAGE]
    paged = [part for page in member["pages"] for part in page["ObjectParts"]["Parts"]]
    assert paged == described["Parts"]
    assert [(part["PartNumber"], part["Size"], part["ChecksumCRC32"]) for part in paged] == [
        (part["PartNumber"], len(SEEN[part["PartNumber"] - 1]), part["ChecksumCRC32"]) for part in parts
    ]
    assert member["head"]["ETag"] == done["ETag"] and done["ETag"].endswith(f'-{PARTS}"')
    assert member["head"]["ContentLength"] == member["all"]["ObjectSize"] == STARTS[-1]
    for number, part in enumerate(SEEN, 1):
        at = STARTS[number - 1]
        assert (member[number]["ContentLength"], member[number]["PartsCount"]) == (len(part), PARTS)
        assert member[number]["ContentRange"] == f"bytes {at}-{at + len(part) - 1}/{STARTS[-1]}"
    for number in (1, 2, 100, 101, PARTS):
        assert member[f"body {number}"]["body"] == hashlib.sha256(SEEN[number - 1]).hexdigest()
    for start, end in ranges():
        assert member[f"range {start}"]["body"] == hashlib.sha256(content(start, end)).hexdigest()
    assert member["beyond"] == ("InvalidPartNumber", 416)


def test_mounted_where_it_was_not_written(pair, written, tmp_path):
    bucket, writer, *_ = written
    reader = pair.all["home" if writer == "member" else "member"]
    mounts = Mounts(tmp_path, reader)
    try:
        with reader.counting() as crossed:
            at = mounts.mount(bucket) / "k"
            assert at.stat().st_size == STARTS[-1]
            expected, got = hashlib.sha256(), hashlib.sha256()
            for part in SEEN:
                expected.update(part)
            with open(at, "rb") as file:
                for start, end in ranges():
                    file.seek(start)
                    assert file.read(end - start) == content(start, end)
                file.seek(0)
                while piece := file.read(MIB):
                    got.update(piece)
            assert got.digest() == expected.digest()
        # Content that is there many times crosses once at the most, for whichever test reads first.
        print(f"\n{STARTS[-1] / MIB:.0f} MiB read, {crossed().payload / MIB:.1f} MiB crossed")
        assert crossed().payload < 1.2 * sum(map(len, SOURCES.values())), crossed()
    finally:
        mounts.end()
