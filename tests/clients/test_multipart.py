"""Multipart uploads, from small to large."""

import base64
import hashlib
import threading

import boto3.s3.transfer
import pytest

from conftest import parameter
from content import body, digest, write
from raw import CHECKSUMS, Raw, checksum
from test_objects import refused

MIB = 1 << 20
PARTS = [body(("part", n), size) for n, size in enumerate((5 * MIB, 5 * MIB + 1, 12_345))]


def upload(s3, bucket, key, parts=tuple(PARTS), **options) -> tuple[str, list]:
    """Uploads parts and returns what completion needs."""
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key, **options)
    extra = {"ChecksumAlgorithm": options["ChecksumAlgorithm"]} if "ChecksumAlgorithm" in options else {}
    done = []
    for number, part in enumerate(parts, 1):
        reply = s3.upload_part(
            Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=number, Body=part, **extra
        )
        checksums = {
            name: value for name, value in reply.items() if name.startswith("Checksum") and name != "ChecksumType"
        }
        done.append({"PartNumber": number, "ETag": reply["ETag"]} | checksums)
    return begun["UploadId"], done


def complete(s3, bucket, key, upload_id, parts, **options):
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **options
    )


def test_parts_become_one(s3, bucket):
    whole = b"".join(PARTS)
    upload_id, parts = upload(s3, bucket, "k", Metadata={"m": "1"}, ContentType="text/x", Tagging="a=1")
    assert refused(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)
    done = complete(s3, bucket, "k", upload_id, parts)
    etag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in PARTS)).hexdigest()
    assert done["ETag"] == f'"{etag}-3"'
    assert int(done["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]) > 0
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["Body"].read() == whole
    assert (found["Metadata"], found["ContentType"], found["TagCount"], found["ETag"]) == (
        {"m": "1"},
        "text/x",
        1,
        done["ETag"],
    )
    at = 0
    for number, part in enumerate(PARTS, 1):
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert found["Body"].read() == part and found["PartsCount"] == 3
        assert found["ContentRange"] == f"bytes {at}-{at + len(part) - 1}/{len(whole)}"
        assert s3.head_object(Bucket=bucket, Key="k", PartNumber=number)["ContentLength"] == len(part)
        at += len(part)
    assert refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=4)[1] == 416
    # Ranges across the seams.
    for start, end in (
        (5 * MIB - 1, 5 * MIB),
        (5 * MIB, 5 * MIB),
        (0, len(whole) - 1),
        (10 * MIB, 10 * MIB + 1),
        (len(whole) - 12_346, len(whole) - 1),
    ):
        found = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={start}-{end}")
        assert found["Body"].read() == whole[start : end + 1]
    assert refused(s3.list_parts, Bucket=bucket, Key="k", UploadId=upload_id) == ("NoSuchUpload", 404)


@pytest.mark.parametrize("algorithm", list(CHECKSUMS))
def test_composite_and_full_checksums(s3, bucket, algorithm):
    name = algorithm.upper()
    kinds = {"crc64nvme": ["FULL_OBJECT"], "sha1": ["COMPOSITE"], "sha256": ["COMPOSITE"]}.get(
        algorithm, ["COMPOSITE", "FULL_OBJECT"]
    )
    for kind in kinds:
        upload_id, parts = upload(s3, bucket, kind, ChecksumAlgorithm=name, ChecksumType=kind)
        done = complete(s3, bucket, kind, upload_id, parts)
        if kind == "COMPOSITE":
            digests = b"".join(CHECKSUMS[algorithm](part) for part in PARTS)
            expected = base64.b64encode(CHECKSUMS[algorithm](digests)).decode() + "-3"
        else:
            expected = checksum(algorithm, b"".join(PARTS))
        assert (done[f"Checksum{name}"], done["ChecksumType"]) == (expected, kind)
        found = s3.head_object(Bucket=bucket, Key=kind, ChecksumMode="ENABLED")
        assert (found[f"Checksum{name}"], found["ChecksumType"]) == (expected, kind)
        attributes = s3.get_object_attributes(
            Bucket=bucket, Key=kind, ObjectAttributes=["ObjectParts", "Checksum"], MaxParts=2
        )
        assert attributes["Checksum"]["ChecksumType"] == kind
        described = attributes["ObjectParts"]
        assert described["TotalPartsCount"] == 3 and described["IsTruncated"] is True
        assert [part["Size"] for part in described["Parts"]] == [5 * MIB, 5 * MIB + 1]
        assert described["Parts"][0][f"Checksum{name}"] == checksum(algorithm, PARTS[0])
        rest = s3.get_object_attributes(
            Bucket=bucket,
            Key=kind,
            ObjectAttributes=["ObjectParts"],
            PartNumberMarker=described["NextPartNumberMarker"],
        )
        assert [part["PartNumber"] for part in rest["ObjectParts"]["Parts"]] == [3]
    wrong = {"crc64nvme": "COMPOSITE", "sha1": "FULL_OBJECT", "sha256": "FULL_OBJECT"}.get(algorithm)
    if wrong:
        code = refused(s3.create_multipart_upload, Bucket=bucket, Key="k", ChecksumAlgorithm=name, ChecksumType=wrong)
        assert code == ("InvalidRequest", 400)


def test_full_object_checksum_that_is_wrong(s3, bucket):
    upload_id, parts = upload(s3, bucket, "k", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    code = refused(
        complete,
        s3=s3,
        bucket=bucket,
        key="k",
        upload_id=upload_id,
        parts=parts,
        ChecksumCRC32=checksum("crc32", b"else"),
        ChecksumType="FULL_OBJECT",
    )
    assert code == ("BadDigest", 400)
    assert refused(s3.head_object, Bucket=bucket, Key="k")[1] == 404
    complete(
        s3, bucket, "k", upload_id, parts, ChecksumCRC32=checksum("crc32", b"".join(PARTS)), ChecksumType="FULL_OBJECT"
    )


def test_completion_that_names_the_wrong_things(s3, bucket):
    upload_id, parts = upload(s3, bucket, "k")
    finish = lambda parts, **options: refused(
        complete, s3=s3, bucket=bucket, key="k", upload_id=upload_id, parts=parts, **options
    )
    assert finish([parts[1], parts[0]]) == ("InvalidPartOrder", 400)
    assert finish([parts[0], parts[0]]) == ("InvalidPartOrder", 400)
    assert finish([*parts[:2], {"PartNumber": 4, "ETag": parts[0]["ETag"]}]) == ("InvalidPart", 400)
    assert finish([parts[0] | {"ETag": parts[1]["ETag"]}, *parts[1:]]) == ("InvalidPart", 400)
    assert finish([])[1] == 400
    assert finish(parts, MpuObjectSize=17)[1] == 400
    assert finish([parts[2] | {"PartNumber": 3}, {"PartNumber": 4, "ETag": "x"}])[1] == 400
    assert refused(s3.head_object, Bucket=bucket, Key="k")[1] == 404
    # Any ascending choice of parts is lawful.
    complete(s3, bucket, "k", upload_id, [parts[0], parts[2]])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == PARTS[0] + PARTS[2]


def test_parts_that_are_too_small(s3, bucket):
    upload_id, parts = upload(s3, bucket, "k", [b"x" * 1000, b"y"])
    assert refused(complete, s3=s3, bucket=bucket, key="k", upload_id=upload_id, parts=parts) == ("EntityTooSmall", 400)
    one_id, one = upload(s3, bucket, "one", [b"only"])
    complete(s3, bucket, "one", one_id, one)
    assert s3.get_object(Bucket=bucket, Key="one")["Body"].read() == b"only"


def test_part_that_is_sent_twice(s3, bucket):
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    first = s3.upload_part(Bucket=bucket, Key="k", UploadId=begun, PartNumber=7, Body=b"first")
    second = s3.upload_part(Bucket=bucket, Key="k", UploadId=begun, PartNumber=7, Body=b"second")
    code = refused(
        complete, s3=s3, bucket=bucket, key="k", upload_id=begun, parts=[{"PartNumber": 7, "ETag": first["ETag"]}]
    )
    assert code == ("InvalidPart", 400)
    complete(s3, bucket, "k", begun, [{"PartNumber": 7, "ETag": second["ETag"]}])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_part_numbers_have_bounds(raw, bucket, number):
    begun = raw.request("POST", raw.path(bucket, "k"), {"uploads": ""}).xml.findtext("UploadId")
    reply = raw.request("PUT", raw.path(bucket, "k"), {"partNumber": str(number), "uploadId": begun}, body=b"x")
    assert reply.status == 400 and reply.code == "InvalidArgument", reply


def test_many_parts(http_server, s3, bucket):
    """More parts than a record should hold, in any order of arrival."""
    part = body("many", 5 * MIB)
    count = 40
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    done = {}
    for number in [*range(count, 0, -2), *range(count - 1, 0, -2)]:
        # The same bytes every time: they are kept once.
        done[number * 250] = s3.upload_part(Bucket=bucket, Key="k", UploadId=begun, PartNumber=number * 250, Body=part)[
            "ETag"
        ]
    complete(s3, bucket, "k", begun, [{"PartNumber": n, "ETag": done[n]} for n in sorted(done)])
    found = s3.get_object(Bucket=bucket, Key="k")
    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(part)
    got = hashlib.sha256()
    for chunk in found["Body"].iter_chunks(MIB):
        got.update(chunk)
    assert got.digest() == expected.digest()
    # Whatever the parts are called now, they are called that everywhere.
    described = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"])["ObjectParts"]
    assert described["TotalPartsCount"] == count
    for known in described.get("Parts", []):
        part_number = known["PartNumber"]
        assert s3.head_object(Bucket=bucket, Key="k", PartNumber=part_number)["ContentLength"] == known["Size"]


def test_ten_thousand_parts(http_server):
    """The most that S3 allows. Parts but the last need 5 MiB: copied by reference, they weigh nothing."""
    with Raw(http_server) as raw:
        name = "ten-thousand-parts"
        raw.request("PUT", raw.path(name))
        count = 10_000 if parameter("LONG", 0) else 1_000
        data = body("ten thousand", 5 * MIB)
        raw.put(name, "source", data)
        path = raw.path(name, "k")
        begun = raw.request("POST", path, {"uploads": ""}).xml.findtext("UploadId")
        listed = []
        for number in range(1, count + 1):
            reply = raw.request(
                "PUT", path, {"partNumber": str(number), "uploadId": begun}, {"x-amz-copy-source": f"{name}/source"}
            )
            assert reply.status == 200, reply
            listed.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{reply.xml.findtext('ETag')}</ETag></Part>")
        document = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>".encode()
        assert raw.request("POST", path, {"uploadId": begun}, body=document).status == 200
        assert int(raw.head(name, "k").headers["content-length"]) == count * 5 * MIB
        at = (count - 1) * 5 * MIB - 10
        reply = raw.get(name, "k", headers={"range": f"bytes={at}-{at + 19}"})
        assert reply.body == data[-10:] + data[:10]
        raw.delete(name, "k")


def test_listing_parts(s3, bucket):
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32")["UploadId"]
    for number in (1, 2, 3, 10, 20):
        s3.upload_part(
            Bucket=bucket, Key="k", UploadId=begun, PartNumber=number, Body=b"x" * number, ChecksumAlgorithm="CRC32"
        )
    pages = list(
        s3.get_paginator("list_parts").paginate(
            Bucket=bucket, Key="k", UploadId=begun, PaginationConfig={"PageSize": 2}
        )
    )
    found = [part for page in pages for part in page["Parts"]]
    assert [(part["PartNumber"], part["Size"]) for part in found] == [(n, n) for n in (1, 2, 3, 10, 20)]
    assert found[0]["ChecksumCRC32"] == checksum("crc32", b"x")
    assert [page["IsTruncated"] for page in pages] == [True, True, False]


@pytest.mark.parametrize("declared", [*CHECKSUMS, None])
@pytest.mark.parametrize("stated", [*CHECKSUMS, None])
def test_parts_state_the_checksum_of_their_upload(raw, bucket, declared, stated):
    path = raw.path(bucket, "k")
    begun = raw.request("POST", path, {"uploads": ""}, {"x-amz-checksum-algorithm": declared.upper()} if declared else {})
    query = {"partNumber": "1", "uploadId": begun.xml.findtext("UploadId")}
    headers = {f"x-amz-checksum-{stated}": checksum(stated, b"part")} if stated else {}
    reply = raw.request("PUT", path, query, headers, b"part")
    parts = lambda: list(raw.request("GET", path, {"uploadId": query["uploadId"]}).xml.iter("Part"))
    if declared is None or stated in (declared, None):
        assert reply.status == 200, reply
        kept = declared or "crc64nvme"
        assert [part.findtext(f"Checksum{kept.upper()}") for part in parts()] == [checksum(kept, b"part")]
    else:
        assert (reply.status, reply.code) == (400, "InvalidRequest"), reply
        assert f"expected checksum Type: {declared}, actual checksum Type: {stated}" in reply.message
        assert not parts()


def test_listing_uploads(s3, bucket):
    ids = {key: s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in ("a", "b/1", "b/2", "c")}
    second = s3.create_multipart_upload(Bucket=bucket, Key="a")["UploadId"]
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    found = [(found["Key"], found["UploadId"]) for page in pages for found in page.get("Uploads", [])]
    assert [key for key, _ in found] == ["a", "a", "b/1", "b/2", "c"]
    assert {upload for _, upload in found} == {*ids.values(), second}
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [found["Key"] for found in page["Uploads"]] == ["a", "a", "c"]
    assert [found["Prefix"] for found in page["CommonPrefixes"]] == ["b/"]
    assert [found["Key"] for found in s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]] == [
        "b/1",
        "b/2",
    ]
    for key, upload_id in [*ids.items(), ("a", second)]:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert refused(s3.abort_multipart_upload, Bucket=bucket, Key="c", UploadId=ids["c"]) == ("NoSuchUpload", 404)
    assert refused(s3.upload_part, Bucket=bucket, Key="c", UploadId=ids["c"], PartNumber=1, Body=b"x") == (
        "NoSuchUpload",
        404,
    )


@pytest.mark.parametrize("upload_id", ["x", "../../etc/passwd", "0", "ü"])
def test_upload_ids_that_are_none(s3, bucket, upload_id):
    assert refused(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=1, Body=b"x") == (
        "NoSuchUpload",
        404,
    )


def test_part_copies(s3, bucket):
    source = body("source", 6 * MIB)
    s3.put_object(Bucket=bucket, Key="s ü", Body=source)
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    copy = lambda number, **options: s3.upload_part_copy(
        Bucket=bucket,
        Key="k",
        UploadId=begun,
        PartNumber=number,
        CopySource={"Bucket": bucket, "Key": "s ü"},
        **options,
    )["CopyPartResult"]["ETag"]
    tags = [copy(1), copy(2, CopySourceRange=f"bytes=1-{5 * MIB}"), copy(3, CopySourceRange="bytes=0-0")]
    assert tags[0] == f'"{hashlib.md5(source).hexdigest()}"'
    for bad in (f"bytes=0-{6 * MIB}", "bytes=9999999-99999999", "bytes=-5", "0-5"):
        assert refused(copy, number=4, CopySourceRange=bad)[1] in (400, 416), bad
    assert refused(copy, number=4, CopySourceIfMatch='"no"') == ("PreconditionFailed", 412)
    complete(s3, bucket, "k", begun, [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)])
    s3.delete_object(Bucket=bucket, Key="s ü")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == source + source[1 : 5 * MIB + 1] + source[:1]
    # A copy of a multipart object is one object, with one part's entity tag.
    copied = s3.copy_object(Bucket=bucket, Key="whole", CopySource={"Bucket": bucket, "Key": "k"})
    assert s3.get_object(Bucket=bucket, Key="whole")["Body"].read() == source + source[1 : 5 * MIB + 1] + source[:1]
    assert copied["CopyObjectResult"]["ETag"]


def test_completion_happens_once(s3, bucket):
    """However many complete an upload at a time, and whoever asks again later: one object, and all are told the same."""
    upload_id, parts = upload(s3, bucket, "k", [b"x" * 100])
    outcomes = []

    def finish():
        try:
            outcomes.append(
                complete(s3, bucket, "k", upload_id, parts)["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"]
            )
        except s3.exceptions.ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish()
    assert len(outcomes) == 9 and len(set(outcomes)) == 1 and outcomes[0].isdigit(), outcomes


def test_large_object(server, s3, bucket, tmp_path):
    """As `aws s3 cp` and boto3's upload_file do it: 200 MiB, with `--long` 6 GiB."""
    size = parameter("MULTIPART_MIB", 200) * MIB
    source = write(tmp_path / "source", "large", size)
    config = boto3.s3.transfer.TransferConfig(multipart_chunksize=16 * MIB, max_concurrency=4)
    s3.upload_file(str(source), bucket, "large", Config=config)
    expected = digest(source)
    source.unlink()
    back = tmp_path / "back"
    s3.download_file(bucket, "large", str(back), Config=config)
    assert digest(back) == expected
    back.unlink()
    s3.delete_object(Bucket=bucket, Key="large")
