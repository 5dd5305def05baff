"""Objects: put, get, head, delete, ranges, conditional reads, metadata, tags, copies, attributes."""

import datetime
import email.header
import email.utils
import hashlib

import pytest
from botocore.exceptions import ClientError

from content import body
from raw import STREAMING_UNSIGNED_TRAILER, UNSIGNED, checksum, md5, unsigned_chunks

SIZES = [0, 1, 4095, 65_535, 65_536, 65_537, 1_000_000, 9_000_001]


def refused(call, **arguments):
    """Calls and returns the error: its code and status."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", SIZES)
def test_body_comes_back(s3, bucket, size):
    data = body(size, size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == data
    assert got["ContentLength"] == size and got["ETag"] == put["ETag"]
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert got["ContentType"] == "binary/octet-stream"
    assert abs((got["LastModified"] - datetime.datetime.now(datetime.UTC)).total_seconds()) < 60


def test_headers_come_back(s3, bucket):
    given = {
        "CacheControl": "max-age=60, private",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de, en",
        "ContentType": "text/plain; charset=utf-8",
        "Expires": datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "WebsiteRedirectLocation": "/elsewhere",
        "Metadata": {"plain": "value", "spaces": "a  b", "empty": "", "upper": "CASE"},
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **given)
    for found in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        expires = email.utils.parsedate_to_datetime(found["ExpiresString"])
        assert expires == given["Expires"]
        metadata = found["Metadata"]
        assert metadata.pop("spaces").split() == ["a", "b"]
        assert metadata == {"plain": "value", "empty": "", "upper": "CASE"}
        for name in ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType"):
            assert found[name] == given[name], name
        assert found["WebsiteRedirectLocation"] == "/elsewhere"


def test_aws_chunked_is_not_an_encoding_of_the_object(s3, raw, bucket):
    data = b"x" * 1000
    trailer = f"x-amz-checksum-crc32:{checksum('crc32', data)}"
    for encoding, left in (("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip")):
        headers = {
            "content-encoding": encoding,
            "x-amz-decoded-content-length": "1000",
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        reply = raw.put(bucket, "k", unsigned_chunks(data, trailer), headers, payload=STREAMING_UNSIGNED_TRAILER)
        assert reply.status == 200, reply
        found = raw.head(bucket, "k")
        assert found.headers.get("content-encoding") in ((left,) if left else (None, "")), encoding
        assert found.headers["content-length"] == "1000"


def test_metadata_has_a_limit(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"a": "x" * 2000})
    code, status = refused(s3.put_object, Bucket=bucket, Key="k", Body=b"", Metadata={"a": "x" * 2100})
    assert (code, status) == ("MetadataTooLarge", 400)


def test_metadata_beyond_ascii(raw, bucket):
    """What a client sends as UTF-8 comes back as RFC 2047, which is how S3 carries it."""
    assert raw.put(bucket, "k", b"", {"x-amz-meta-name": "=?UTF-8?B?w7xtbGF1dA==?="}).status == 200
    found = raw.head(bucket, "k").headers["x-amz-meta-name"]
    decoded = "".join(
        part.decode(charset or "utf-8") if isinstance(part, bytes) else part
        for part, charset in email.header.decode_header(found)
    )
    assert decoded in ("ümlaut", "=?UTF-8?B?w7xtbGF1dA==?=")


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize(
    "given, first, last",
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, None),
        ("bytes=-1", -1, None),
        ("bytes=-100", -100, None),
        ("bytes=-999999999", 0, None),
        ("bytes=10-999999999", 10, None),
        ("bytes=999-999", 999, 999),
    ],
)
def test_ranges(raw, bucket, size, given, first, last):
    data = body(size, size)
    raw.put(bucket, "k", data)
    start = first if first >= 0 else max(0, size + first)
    end = min(size - 1, size if last is None else last)
    for reply in (raw.get(bucket, "k", headers={"range": given}), raw.head(bucket, "k", headers={"range": given})):
        assert reply.status == 206, reply
        assert reply.headers["content-range"] == f"bytes {start}-{end}/{size}"
        assert reply.headers["content-length"] == str(end - start + 1)
    assert raw.get(bucket, "k", headers={"range": given}).body == data[start : end + 1]


def test_ranges_across_groups_and_pieces(raw, bucket):
    """Any cut of a body whose verification works in groups of 64 KiB."""
    data = body("groups", 1_000_003)
    raw.put(bucket, "k", data)
    edges = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 262_143, 262_144, 500_000, 1_000_002]
    for start in edges:
        for end in (e for e in edges if e >= start):
            reply = raw.get(bucket, "k", headers={"range": f"bytes={start}-{end}"})
            assert reply.status == 206 and reply.body == data[start : end + 1], (start, end)


@pytest.mark.parametrize("given", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_ranges_beyond_the_end(raw, bucket, given):
    raw.put(bucket, "k", b"x" * 1000)
    reply = raw.get(bucket, "k", headers={"range": given})
    assert reply.status == 416 and reply.code == "InvalidRange", reply
    assert raw.head(bucket, "k", headers={"range": given}).status == 416


@pytest.mark.parametrize("given", ["bytes=5-2", "bytes=a-b", "chars=0-1", "bytes=", "bytes=0-1,3-4", "0-1"])
def test_ranges_that_are_none(raw, bucket, given):
    """AWS ignores what it cannot read and several ranges at once, as RFC 9110 allows."""
    raw.put(bucket, "k", b"0123456789")
    reply = raw.get(bucket, "k", headers={"range": given})
    assert (reply.status, reply.body) == (200, b"0123456789"), reply


def test_range_of_an_empty_object(raw, bucket):
    raw.put(bucket, "k", b"")
    assert raw.get(bucket, "k", headers={"range": "bytes=0-"}).status == 416
    assert raw.get(bucket, "k").status == 200


def http_date(offset: float) -> str:
    return email.utils.formatdate(datetime.datetime.now().timestamp() + offset, usegmt=True)


def test_conditional_reads(raw, bucket):
    """RFC 9110's order: If-Match before If-Unmodified-Since, If-None-Match before If-Modified-Since."""
    etag = raw.put(bucket, "k", b"x").headers["etag"]
    past, future = http_date(-86_400), http_date(+86_400)
    cases = [
        ({"if-match": etag}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"no"'}, 412),
        ({"if-match": f'"no", {etag}'}, 200),
        ({"if-match": etag.strip('"')}, 200),
        ({"if-none-match": etag}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"no"'}, 200),
        ({"if-modified-since": past}, 200),
        ({"if-unmodified-since": past}, 412),
        ({"if-unmodified-since": future}, 200),
        ({"if-match": etag, "if-unmodified-since": past}, 200),
        ({"if-none-match": '"no"', "if-modified-since": http_date(-1)}, 200),
        ({"if-none-match": etag, "if-modified-since": past}, 304),
    ]
    for headers, expected in cases:
        for method in (raw.get, raw.head):
            reply = method(bucket, "k", headers=headers)
            assert reply.status == expected, (headers, reply)
            if expected == 304:
                assert reply.body == b"" and reply.headers["etag"] == etag
    assert raw.get(bucket, "k", headers={"if-match": '"no"'}).code == "PreconditionFailed"


def test_last_modified_can_be_sent_back(raw, bucket):
    raw.put(bucket, "k", b"x")
    date = raw.head(bucket, "k").headers["last-modified"]
    assert raw.get(bucket, "k", headers={"if-modified-since": date}).status == 304
    assert raw.get(bucket, "k", headers={"if-unmodified-since": date}).status == 200


def test_response_overrides(raw, bucket):
    raw.put(bucket, "k", b"x", {"content-type": "text/plain", "cache-control": "no-store"})
    overrides = {
        "response-content-type": "application/json",
        "response-content-disposition": 'attachment; filename="x"',
        "response-content-encoding": "identity",
        "response-content-language": "fr",
        "response-cache-control": "max-age=5",
        "response-expires": "Thu, 01 Dec 2033 16:00:00 GMT",
    }
    reply = raw.get(bucket, "k", overrides)
    assert reply.status == 200, reply
    for name, value in overrides.items():
        assert reply.headers[name.removeprefix("response-")] == value, name
    assert raw.presigned("GET", raw.path(bucket, "k"), overrides).headers["content-type"] == "application/json"
    assert raw.get(bucket, "k").headers["content-type"] == "text/plain"


def test_missing_things(s3, raw, bucket):
    assert refused(s3.get_object, Bucket=bucket, Key="none") == ("NoSuchKey", 404)
    assert refused(s3.head_object, Bucket=bucket, Key="none") == ("404", 404)
    assert refused(s3.get_object, Bucket="no-such-bucket-here", Key="k") == ("NoSuchBucket", 404)
    assert refused(s3.list_objects_v2, Bucket="no-such-bucket-here") == ("NoSuchBucket", 404)
    assert refused(s3.put_object, Bucket="no-such-bucket-here", Key="k") == ("NoSuchBucket", 404)
    assert refused(s3.head_bucket, Bucket="no-such-bucket-here") == ("404", 404)
    head = raw.head(bucket, "none")
    assert head.status == 404 and head.body == b""
    # Deleting what is not there is no error.
    assert s3.delete_object(Bucket=bucket, Key="none")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_delete_objects(s3, raw, bucket):
    for number in range(1000):
        last = raw.put(bucket, f"k{number:04}", b"x").number
    listed = [{"Key": f"k{number:04}"} for number in range(1000)]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": listed[:500]})
    assert sorted(found["Key"] for found in reply["Deleted"]) == [key["Key"] for key in listed[:500]]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*listed[500:], {"Key": "none"}], "Quiet": True})
    assert "Deleted" not in quiet and "Errors" not in quiet
    assert int(quiet["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]) == last + 1000
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    too_many = [{"Key": f"k{number}"} for number in range(1001)]
    assert refused(s3.delete_objects, Bucket=bucket, Delete={"Objects": too_many})[1] == 400


@pytest.mark.parametrize("versioning", [None, "Enabled"])
def test_delete_objects_with_a_key_twice(s3, raw, bucket, versioning):
    """Each is reported. Without versioning the second finds nothing, with it each makes a marker, as one by one."""
    if versioning:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning})
    raw.put(bucket, "other", b"other")
    number = raw.put(bucket, "k", b"x").number
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}, {"Key": "k"}]})
    assert [found["Key"] for found in reply["Deleted"]] == ["k", "k"] and "Errors" not in reply
    spent = 2 if versioning else 1
    assert int(reply["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]) == number + spent
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["other"]
    markers = s3.list_object_versions(Bucket=bucket).get("DeleteMarkers", [])
    assert [marker["IsLatest"] for marker in markers] == ([True, False] if versioning else [])
    named = [{"Key": "k", "VersionId": marker["VersionId"]} for marker in markers[:1] * 2]
    if named:
        again = s3.delete_objects(Bucket=bucket, Delete={"Objects": named})["Deleted"]
        assert [found["VersionId"] for found in again] == [markers[0]["VersionId"]] * 2
        spent += 1
    assert raw.put(bucket, "k", b"y").number == number + spent + 1


def test_delete_objects_needs_a_checksum_that_holds(raw, bucket):
    raw.put(bucket, "k", b"x")
    document = b"<Delete><Object><Key>k</Key></Object></Delete>"
    path = raw.path(bucket)
    wrong = {"content-md5": md5(b"else")}
    reply = raw.request("POST", path, {"delete": ""}, wrong, document)
    assert reply.status == 400 and reply.code in ("BadDigest", "InvalidDigest"), reply
    wrong = {"x-amz-checksum-crc32": checksum("crc32", b"else")}
    reply = raw.request("POST", path, {"delete": ""}, wrong, document)
    assert reply.status == 400, reply
    assert raw.get(bucket, "k").status == 200
    for right in ({"content-md5": md5(document)}, {"x-amz-checksum-crc32": checksum("crc32", document)}):
        assert raw.request("POST", path, {"delete": ""}, right, document).status == 200
    assert raw.get(bucket, "k").status == 404


def test_object_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=two%20words")
    tags = lambda: {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]}
    assert tags() == {"a": "1", "b": "two words"}
    assert s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"].get("x-amz-tagging-count") in (
        None,
        "2",
    )
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "c d", "Value": "ü/=+-._:@"}]})
    assert tags() == {"c d": "ü/=+-._:@"}
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert tags() == {}
    assert "TagCount" not in s3.get_object(Bucket=bucket, Key="k")
    eleven = {"TagSet": [{"Key": f"k{n}", "Value": "v"} for n in range(11)]}
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=eleven)[1] == 400
    twice = {"TagSet": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=twice) == ("InvalidTag", 400)
    for bad in ({"Key": "k" * 129, "Value": ""}, {"Key": "k", "Value": "v" * 257}, {"Key": "aws:x", "Value": "v"}):
        assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": [bad]}) == ("InvalidTag", 400)
    assert tags() == {}


def test_bucket_tags(s3, bucket):
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)


def test_copy(s3, bucket):
    data = body("copy", 100_000)
    s3.put_object(Bucket=bucket, Key="a ü+%", Body=data, Metadata={"m": "1"}, ContentType="text/x", Tagging="t=1")
    source = {"Bucket": bucket, "Key": "a ü+%"}
    s3.copy_object(Bucket=bucket, Key="b", CopySource=source)
    found = s3.get_object(Bucket=bucket, Key="b")
    assert found["Body"].read() == data and found["Metadata"] == {"m": "1"} and found["ContentType"] == "text/x"
    assert found["TagCount"] == 1
    replaced = {
        "MetadataDirective": "REPLACE",
        "Metadata": {"n": "2"},
        "TaggingDirective": "REPLACE",
        "Tagging": "u=2&v=3",
    }
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, **replaced)
    found = s3.get_object(Bucket=bucket, Key="c")
    assert found["Metadata"] == {"n": "2"} and found["ContentType"] == "binary/octet-stream" and found["TagCount"] == 2
    # Onto itself: only with something to change, as AWS has it.
    assert refused(s3.copy_object, Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "b"}) == (
        "InvalidRequest",
        400,
    )
    s3.copy_object(
        Bucket=bucket,
        Key="b",
        CopySource={"Bucket": bucket, "Key": "b"},
        MetadataDirective="REPLACE",
        Metadata={"z": "9"},
    )
    found = s3.get_object(Bucket=bucket, Key="b")
    assert found["Body"].read() == data and found["Metadata"] == {"z": "9"}
    assert refused(s3.copy_object, Bucket=bucket, Key="d", CopySource={"Bucket": bucket, "Key": "none"}) == (
        "NoSuchKey",
        404,
    )
    assert refused(
        s3.copy_object, Bucket=bucket, Key="d", CopySource={"Bucket": "no-such-bucket-here", "Key": "k"}
    ) == ("NoSuchBucket", 404)


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_copy_outlives_its_source(s3, bucket, size):
    data = body("source", size)
    s3.put_object(Bucket=bucket, Key="a", Body=data)
    s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    s3.delete_object(Bucket=bucket, Key="a")
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == data


def test_conditional_copies(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    source = {"Bucket": bucket, "Key": "a"}
    failed = ("PreconditionFailed", 412)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    copy = lambda **conditions: s3.copy_object(Bucket=bucket, Key="b", CopySource=source, **conditions)
    copy(CopySourceIfMatch=etag)
    copy(CopySourceIfNoneMatch='"no"')
    copy(CopySourceIfModifiedSince=past)
    copy(CopySourceIfMatch=etag, CopySourceIfUnmodifiedSince=past)
    assert refused(copy, CopySourceIfMatch='"no"') == failed
    assert refused(copy, CopySourceIfNoneMatch=etag) == failed
    assert refused(copy, CopySourceIfUnmodifiedSince=past) == failed
    assert refused(copy, CopySourceIfNoneMatch=etag, CopySourceIfModifiedSince=past) == failed


def test_copy_computes_a_checksum_that_was_asked_for(s3, bucket):
    data = body("copy checksum", 100_000)
    s3.put_object(Bucket=bucket, Key="a", Body=data, ChecksumAlgorithm="CRC32")
    copied = s3.copy_object(
        Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"}, ChecksumAlgorithm="SHA256"
    )
    assert copied["CopyObjectResult"]["ChecksumSHA256"] == checksum("sha256", data)
    assert s3.head_object(Bucket=bucket, Key="b", ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum("sha256", data)


def test_object_attributes(s3, bucket):
    data = body("attributes", 5000)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="SHA256")
    wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=wanted)
    assert (
        found["ETag"] == put["ETag"].strip('"') and found["ObjectSize"] == 5000 and found["StorageClass"] == "STANDARD"
    )
    assert found["Checksum"]["ChecksumSHA256"] == checksum("sha256", data)
    assert "ObjectParts" not in found
    only = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
    assert only["ObjectSize"] == 5000 and "ETag" not in only and "Checksum" not in only
    assert refused(s3.get_object_attributes, Bucket=bucket, Key="none", ObjectAttributes=wanted) == ("NoSuchKey", 404)


def test_buckets(s3, raw):
    """Create, list, head, locate and delete."""
    names = [f"lifecycle-{word}-{s3.meta.endpoint_url.split(':')[-1]}" for word in ("a", "b", "c")]
    for name in names:
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    listed = s3.list_buckets(Prefix="lifecycle-")
    assert [found["Name"] for found in listed["Buckets"]] == names and listed["Owner"]["ID"]
    first = s3.list_buckets(Prefix="lifecycle-", MaxBuckets=2)
    assert [found["Name"] for found in first["Buckets"]] == names[:2]
    rest = s3.list_buckets(Prefix="lifecycle-", MaxBuckets=2, ContinuationToken=first["ContinuationToken"])
    assert [found["Name"] for found in rest["Buckets"]] == names[2:] and "ContinuationToken" not in rest
    assert s3.get_bucket_location(Bucket=names[0])["LocationConstraint"] == "eu-central-1"
    assert s3.head_bucket(Bucket=names[0])["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    assert refused(s3.create_bucket, Bucket=names[0]) == ("BucketAlreadyOwnedByYou", 409)
    s3.put_object(Bucket=names[0], Key="k", Body=b"")
    assert refused(s3.delete_bucket, Bucket=names[0]) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=names[0], Key="k")
    for name in names:
        s3.delete_bucket(Bucket=name)
    assert refused(s3.head_bucket, Bucket=names[0])[1] == 404
    # A bucket of the name is a new one, whose numbers count on.
    s3.create_bucket(Bucket=names[0])
    assert "Contents" not in s3.list_objects_v2(Bucket=names[0])
    assert s3.get_bucket_location(Bucket=names[0])["LocationConstraint"] is None
    assert raw.put(names[0], "k").number > 2
    assert raw.get(f"{names[0]}--at-1", "k").status == 404


@pytest.mark.parametrize(
    "name",
    ["ab", "Upper-Case", "-abc", "abc-", "a..b", "192.168.1.1", "x" * 64, "under_score", "a--at-b", "photos--at-1"],
)
def test_bucket_names_that_are_none(raw, name):
    reply = raw.request("PUT", raw.path(name))
    assert reply.status == 400 and reply.code == "InvalidBucketName", reply


def test_body_of_unknown_length_is_refused(raw, bucket):
    """S3 wants a Content-Length."""
    connection = raw.connection()
    url = raw.presign("PUT", raw.path(bucket, "k"))
    connection.putrequest("PUT", url, skip_accept_encoding=True)
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders(b"3\r\nabc\r\n0\r\n\r\n")
    reply = connection.getresponse()
    reply.read()
    raw.close()
    assert reply.status in (411, 501)
    assert raw.get(bucket, "k").status == 404


def test_unsigned_payload(raw, bucket):
    assert raw.put(bucket, "k", b"data", payload=UNSIGNED).status == 200
    assert raw.get(bucket, "k").body == b"data"
