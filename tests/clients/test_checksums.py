"""Checksums are verified, stored and returned; what fails one leaves no trace."""

import base64
import hashlib

import pytest
from botocore.exceptions import ClientError

from conftest import boto
from content import body
from raw import (
    CHECKSUMS,
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED,
    Raw,
    checksum,
    md5,
    signed_chunks,
    unsigned_chunks,
)

ALGORITHMS = list(CHECKSUMS)
SIZES = [0, 1000, 65_536, 65_537, 300_000]
DATA = body("checksums", 300_000)


@pytest.fixture
def traceless(raw, bucket):
    """A bucket with one object, which must be as it was afterwards: not a number spent, nothing else listed."""
    number = raw.put(bucket, "k", b"before").number
    yield bucket
    assert raw.get(bucket, "k").body == b"before"
    listing = raw.request("GET", raw.path(bucket)).xml
    assert [key.text for key in listing.iter("Key")] == ["k"]
    assert raw.put(bucket, "k", b"after").number == number + 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", SIZES)
def test_boto3_checksums(s3, bucket, algorithm, size):
    """As boto3 sends them: headers over HTTP, trailers over HTTPS; it verifies what it gets back itself."""
    field = f"Checksum{algorithm.upper()}"
    data = DATA[:size]
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm=algorithm.upper())
    assert put[field] == checksum(algorithm, data) and put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == data and got[field] == checksum(algorithm, data)
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[field] == checksum(algorithm, data)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_right_in_header_and_trailer(raw, bucket, algorithm):
    name, value = f"x-amz-checksum-{algorithm}", checksum(algorithm, DATA)
    trailer = f"{name}:{value}"
    lengths = {"x-amz-decoded-content-length": str(len(DATA)), "content-encoding": "aws-chunked"}
    requests = [
        raw.put(bucket, "header", DATA, {name: value}),
        raw.put(bucket, "unsigned-body", DATA, {name: value}, payload=UNSIGNED),
        raw.put(
            bucket,
            "trailer",
            unsigned_chunks(DATA, trailer),
            lengths | {"x-amz-trailer": name},
            payload=STREAMING_UNSIGNED_TRAILER,
        ),
        raw.put(
            bucket,
            "one-chunk",
            unsigned_chunks(DATA, trailer, size=1 << 30),
            lengths | {"x-amz-trailer": name},
            payload=STREAMING_UNSIGNED_TRAILER,
        ),
        raw.put(bucket, "signed", signed_chunks(DATA), lengths | {name: value}, payload=STREAMING_SIGNED),
        raw.put(
            bucket,
            "signed-trailer",
            signed_chunks(DATA, trailer=trailer),
            lengths | {"x-amz-trailer": name},
            payload=STREAMING_SIGNED_TRAILER,
        ),
    ]
    for reply in requests:
        assert reply.status == 200, reply
        assert reply.headers[name] == value
    for key in ("header", "unsigned-body", "trailer", "one-chunk", "signed", "signed-trailer"):
        reply = raw.get(bucket, key, headers={"x-amz-checksum-mode": "ENABLED"})
        assert reply.body == DATA and reply.headers[name] == value, key
        assert name not in raw.get(bucket, key).headers


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_in_header_and_trailer(raw, traceless, algorithm, size):
    data = DATA[:size]
    name, value = f"x-amz-checksum-{algorithm}", checksum(algorithm, b"something else")
    lengths = {"x-amz-decoded-content-length": str(size), "content-encoding": "aws-chunked", "x-amz-trailer": name}
    replies = [
        raw.put(traceless, "k", data, {name: value}),
        raw.put(traceless, "new", data, {name: value}, payload=UNSIGNED),
        raw.put(
            traceless, "new", unsigned_chunks(data, f"{name}:{value}"), lengths, payload=STREAMING_UNSIGNED_TRAILER
        ),
        raw.put(
            traceless, "new", signed_chunks(data, trailer=f"{name}:{value}"), lengths, payload=STREAMING_SIGNED_TRAILER
        ),
    ]
    for reply in replies:
        assert reply.status == 400 and reply.code == "BadDigest", reply


@pytest.mark.parametrize("value", ["", "!!!", "AAAA", base64.b64encode(b"x" * 33).decode()])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_checksum_at_all(raw, traceless, algorithm, value):
    reply = raw.put(traceless, "new", DATA, {f"x-amz-checksum-{algorithm}": value})
    assert reply.status == 400, reply


def test_trailer_that_was_announced_and_never_came(raw, traceless):
    lengths = {
        "x-amz-decoded-content-length": "1000",
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    reply = raw.put(traceless, "new", unsigned_chunks(DATA[:1000]), lengths, payload=STREAMING_UNSIGNED_TRAILER)
    assert 400 <= reply.status < 500, reply


def test_right_content_md5(raw, bucket):
    assert raw.put(bucket, "k", DATA, {"content-md5": md5(DATA)}).status == 200
    assert raw.get(bucket, "k").body == DATA


def test_wrong_content_md5(raw, traceless):
    reply = raw.put(traceless, "new", DATA, {"content-md5": md5(b"else")})
    assert (reply.status, reply.code) == (400, "BadDigest"), reply
    for value in ("no base64!", base64.b64encode(b"short").decode()):
        reply = raw.put(traceless, "new", DATA, {"content-md5": value})
        assert (reply.status, reply.code) == (400, "InvalidDigest"), reply


def test_body_unlike_its_signature(raw, traceless):
    """x-amz-content-sha256 is a checksum too."""
    for size in (1000, 300_000):
        claimed = hashlib.sha256(b"something else").hexdigest()
        reply = raw.put(traceless, "new", DATA[:size], payload=claimed)
        assert reply.status == 400 and reply.code == "XAmzContentSHA256Mismatch", reply


@pytest.mark.parametrize("which", [0, 2, 5])
@pytest.mark.parametrize("what", ["signature", "data"])
def test_chunks_unlike_their_signatures(raw, traceless, which, what):
    """300,000 bytes are five chunks of 64 KiB; the sixth is the empty one that ends them."""

    def spoil(number, signature, chunk):
        if number != which:
            return signature, chunk
        if what == "signature" or not chunk:
            return "0" * 64, chunk
        return signature, bytes([chunk[0] ^ 1]) + chunk[1:]

    headers = {"x-amz-decoded-content-length": str(len(DATA)), "content-encoding": "aws-chunked"}
    reply = raw.put(traceless, "new", signed_chunks(DATA, spoil=spoil), headers, payload=STREAMING_SIGNED)
    assert reply.status == 403 and reply.code == "SignatureDoesNotMatch", reply


def test_trailer_unlike_its_signature(raw, traceless):
    name = "x-amz-checksum-crc32"
    spoil = lambda number, signature, chunk: ("0" * 64, chunk) if number == -1 else (signature, chunk)
    headers = {"x-amz-decoded-content-length": str(len(DATA)), "content-encoding": "aws-chunked", "x-amz-trailer": name}
    sent = signed_chunks(DATA, trailer=f"{name}:{checksum('crc32', DATA)}", spoil=spoil)
    reply = raw.put(traceless, "new", sent, headers, payload=STREAMING_SIGNED_TRAILER)
    assert reply.status in (400, 403), reply


@pytest.mark.parametrize("declared", [999, 1001, 0])
def test_decoded_length_that_is_not_so(raw, traceless, declared):
    name = "x-amz-checksum-crc32"
    headers = {"x-amz-decoded-content-length": str(declared), "content-encoding": "aws-chunked", "x-amz-trailer": name}
    sent = unsigned_chunks(DATA[:1000], f"{name}:{checksum('crc32', DATA[:1000])}")
    reply = raw.put(traceless, "new", sent, headers, payload=STREAMING_UNSIGNED_TRAILER)
    assert 400 <= reply.status < 500, reply


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("payload", [None, UNSIGNED])
def test_connection_that_drops(http_server, size, payload):
    """Half a body is no body."""
    with Raw(http_server, timeout=10) as raw:
        bucket = f"drops-{size}-{'unsigned' if payload else 'signed'}"
        raw.request("PUT", raw.path(bucket))
        number = raw.put(bucket, "k", b"before").number
        for sent in (0, size // 2, size - 1):
            try:
                reply = raw.put(bucket, "k", DATA[:size], payload=payload, send=sent)
                assert 400 <= reply.status < 500, reply
            except OSError:
                pass  # The server may just hang up.
        assert raw.get(bucket, "k").body == b"before"
        assert raw.put(bucket, "k", b"after").number == number + 1


def test_chunked_body_that_breaks_off(raw, traceless):
    headers = {
        "x-amz-decoded-content-length": str(len(DATA)),
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    reply = raw.put(traceless, "new", unsigned_chunks(DATA, end=False), headers, payload=STREAMING_UNSIGNED_TRAILER)
    assert 400 <= reply.status < 500, reply


@pytest.mark.parametrize("size", [0, 1000, 65_536, 300_000])
@pytest.mark.parametrize("payload", [STREAMING_SIGNED, STREAMING_UNSIGNED_TRAILER])
def test_chunked_body_without_its_last_chunk(raw, traceless, payload, size):
    """All bytes came, and nothing says that they are all: the last chunk is what its sender's end looks like."""
    data = DATA[:size]
    headers = {"x-amz-decoded-content-length": str(size), "content-encoding": "aws-chunked"}
    if payload == STREAMING_SIGNED:
        sent = signed_chunks(data, end=False)
    else:
        sent = unsigned_chunks(data, end=False)
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    path = raw.path(traceless, "new")
    begun = raw.request("POST", path, {"uploads": ""})
    part = {"partNumber": "1", "uploadId": begun.xml.findtext("UploadId")}
    for query in ({}, part):
        reply = raw.request("PUT", path, query, headers=headers, body=sent, payload=payload)
        assert (reply.status, reply.code) == (400, "IncompleteBody"), reply
    assert not list(raw.request("GET", path, {"uploadId": part["uploadId"]}).xml.iter("Part"))


def test_a_body_without_checksum_gets_one(raw, bucket):
    """AWS computes CRC64NVME then."""
    raw.put(bucket, "k", DATA)
    found = raw.head(bucket, "k", headers={"x-amz-checksum-mode": "ENABLED"}).headers
    assert found["x-amz-checksum-crc64nvme"] == checksum("crc64nvme", DATA)
    assert found["x-amz-checksum-type"] == "FULL_OBJECT"


def test_two_checksums_are_refused(raw, traceless):
    headers = {"x-amz-checksum-crc32": checksum("crc32", DATA), "x-amz-checksum-sha1": checksum("sha1", DATA)}
    reply = raw.put(traceless, "new", DATA, headers)
    assert reply.status == 400 and reply.code == "InvalidRequest", reply


@pytest.mark.parametrize(
    "name",
    [
        "x-amz-checksum-sha512",
        "x-amz-checksum-md5",
        "x-amz-checksum-xxhash64",
        "x-amz-checksum-xxhash3",
        "x-amz-checksum-xxhash128",
    ],
)
def test_unknown_algorithms_are_not_ignored(raw, traceless, name):
    """A checksum that nobody verifies would be a quiet success."""
    reply = raw.put(traceless, "new", DATA, {name: base64.b64encode(b"x" * 16).decode()})
    assert reply.status in (400, 501), reply


@pytest.mark.parametrize("mode", ["when_supported", "when_required"])
def test_both_modes_of_the_sdk(server, bucket, mode):
    s3 = boto(server, request_checksum_calculation=mode, response_checksum_validation=mode)
    s3.put_object(Bucket=bucket, Key="k", Body=DATA)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA


def test_checksum_of_a_range_is_not_that_of_the_object(raw, bucket):
    raw.put(bucket, "k", DATA, {"x-amz-checksum-crc32": checksum("crc32", DATA)})
    reply = raw.get(bucket, "k", headers={"range": "bytes=0-99", "x-amz-checksum-mode": "ENABLED"})
    assert reply.status == 206 and "x-amz-checksum-crc32" not in reply.headers


def test_wrong_checksum_through_boto3(s3, traceless):
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=traceless, Key="new", Body=DATA, ChecksumCRC32=checksum("crc32", b"else"))
    assert refused.value.response["Error"]["Code"] == "BadDigest"
