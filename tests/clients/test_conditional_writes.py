"""Conditional writes are decided once, inside the transaction."""

import datetime

import pytest

import checks
from test_multipart import complete, upload
from test_objects import refused

FAILED = ("PreconditionFailed", 412)


def test_put(s3, bucket):
    put = lambda key, **conditions: s3.put_object(Bucket=bucket, Key=key, Body=b"x", **conditions)
    etag = put("k", IfNoneMatch="*")["ETag"]
    assert refused(put, key="k", IfNoneMatch="*") == FAILED
    assert refused(put, key="k", IfMatch='"no"') == FAILED
    etag = put("k", IfMatch=etag)["ETag"]
    assert refused(put, key="none", IfMatch=etag) == ("NoSuchKey", 404)
    s3.delete_object(Bucket=bucket, Key="k")
    assert refused(put, key="k", IfMatch=etag)[1] in (404, 412)
    put("k", IfNoneMatch="*")


def test_put_over_a_delete_marker(s3, versioned):
    """A delete marker is no object: If-None-Match holds over it."""
    s3.put_object(Bucket=versioned, Key="k", Body=b"1")
    s3.delete_object(Bucket=versioned, Key="k")
    s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")
    assert refused(s3.put_object, Bucket=versioned, Key="k", Body=b"3", IfNoneMatch="*") == FAILED
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"2"


def test_complete(s3, bucket):
    upload_id, parts = upload(s3, bucket, "k", [b"parts"])
    s3.put_object(Bucket=bucket, Key="k", Body=b"first")
    finish = lambda **conditions: complete(s3, bucket, "k", upload_id, parts, **conditions)
    assert refused(finish, IfNoneMatch="*") == FAILED
    assert refused(finish, IfMatch='"no"') == FAILED
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"
    # The upload is still there and can be completed otherwise.
    finish(IfMatch=s3.head_object(Bucket=bucket, Key="k")["ETag"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"parts"


def test_copy(raw, bucket):
    raw.put(bucket, "a", b"source")
    source = {"x-amz-copy-source": f"{bucket}/a"}
    copy = lambda **more: raw.put(bucket, "b", headers=source | {n.replace("_", "-"): v for n, v in more.items()})
    assert copy(if_none_match="*").status == 200
    assert copy(if_none_match="*").status == 412
    assert copy(if_match='"no"').status == 412
    assert copy(if_match=raw.head(bucket, "b").headers["etag"]).status == 200


def test_delete(s3, raw, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"four")["ETag"]
    modified = raw.head(bucket, "k").headers["last-modified"]
    delete = lambda **headers: raw.delete(bucket, "k", headers={n.replace("_", "-"): v for n, v in headers.items()})
    other_date = "Wed, 21 Oct 2015 07:28:00 GMT"
    for wrong in (
        {"if_match": '"no"'},
        {"x_amz_if_match_size": "5"},
        {"x_amz_if_match_last_modified_time": other_date},
    ):
        reply = delete(**wrong)
        assert reply.status == 412 and reply.code == "PreconditionFailed", (wrong, reply)
    assert raw.head(bucket, "k").status == 200
    assert delete(if_match=etag, x_amz_if_match_size="4", x_amz_if_match_last_modified_time=modified).status == 204
    assert raw.head(bucket, "k").status == 404


def test_delete_objects(s3, bucket):
    etags = {key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode())["ETag"] for key in ("a", "b", "c")}
    objects = [
        {"Key": "a", "ETag": etags["a"]},
        {"Key": "b", "ETag": '"no"'},
        {"Key": "c", "Size": 99},
    ]
    reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [found["Key"] for found in reply["Deleted"]] == ["a"]
    assert sorted((found["Key"], found["Code"]) for found in reply["Errors"]) == [
        ("b", "PreconditionFailed"),
        ("c", "PreconditionFailed"),
    ]
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b", "c"]


@pytest.mark.parametrize("conditions", [{"if-none-match": '"an etag"'}, {"if-match": '"a"', "if-none-match": "*"}])
def test_conditions_that_s3_does_not_know(raw, bucket, conditions):
    """What is not evaluated must not look as if it had been."""
    raw.put(bucket, "k", b"before")
    reply = raw.put(bucket, "k", b"after", conditions)
    if reply.status == 200:
        # Evaluated as HTTP defines it, which here means: the entity tag is another one, so the write is lawful.
        assert conditions == {"if-none-match": '"an etag"'}
    else:
        assert reply.status in (400, 412, 501), reply
        assert raw.get(bucket, "k").body == b"before"


def test_races_have_one_winner(http_server):
    checks.exactly_one_winner(http_server)


def test_failed_conditions_leave_nothing(http_server):
    checks.failed_conditions_leave_nothing(http_server)


def test_races_between_kinds_of_writes(http_server):
    """Put, copy and complete all race to create one key."""
    with checks.Raw(http_server) as raw:
        bucket = checks.new_bucket(raw, "kinds")
        raw.put(bucket, "source", b"source")
        for turn in range(6):
            key = f"k{turn}"
            path = raw.path(bucket, key)
            uploads = {}
            for index in range(8):
                begun = raw.request("POST", path, {"uploads": ""}).xml.findtext("UploadId")
                etag = raw.request("PUT", path, {"partNumber": "1", "uploadId": begun}, body=b"x").headers["etag"]
                part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
                uploads[index] = begun, f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()

            def work(r, index):
                condition = {"if-none-match": "*"}
                if index < 8:
                    begun, document = uploads[index]
                    return r.request("POST", path, {"uploadId": begun}, condition, document)
                if index < 16:
                    return r.put(bucket, key, headers=condition | {"x-amz-copy-source": f"{bucket}/source"})
                return r.put(bucket, key, b"put", condition)

            replies = checks.together(http_server, 24, work)
            won = [reply for reply in replies if reply.status == 200 and reply.code is None]
            checks.hold(len(won) == 1, f"{len(won)} winners: {[str(r) for r in won]}")
            assert raw.head(bucket, key).number == won[0].number


def test_condition_on_time(s3, bucket):
    """If-Match beside other conditions: all of them count."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    code = refused(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag, IfMatchLastModifiedTime=future)
    assert code == FAILED
