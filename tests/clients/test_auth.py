"""Who may: signatures of every kind, and what an attacker adds to them."""

import base64
import email.utils
import hashlib
import hmac

import pytest

from conftest import boto
from raw import STREAMING_UNSIGNED_TRAILER, UNSIGNED, Raw, Signer, checksum, timestamp, unsigned_chunks
from server import ACCESS_KEY, SECRET_KEY, Server


@pytest.fixture
def secret(raw, bucket):
    raw.put(bucket, "k", b"secret")
    return bucket


def test_wrong_keys(server, secret):
    for signer, code in (
        (Signer(secret="wrong"), "SignatureDoesNotMatch"),
        (Signer(access="NOSUCHKEY"), "InvalidAccessKeyId"),
    ):
        with Raw(server, signer) as raw:
            reply = raw.get(secret, "k")
            assert (reply.status, reply.code) == (403, code), reply
            assert raw.put(secret, "k", b"x").status == 403
            assert raw.presigned("GET", raw.path(secret, "k")).status == 403


def test_nobody(raw, secret):
    for method, path in (
        ("GET", raw.path(secret, "k")),
        ("PUT", raw.path(secret, "new")),
        ("GET", "/"),
        ("GET", raw.path(secret)),
        ("DELETE", raw.path(secret, "k")),
    ):
        reply = raw.request(method, path, sign=False)
        assert (reply.status, reply.code) == (403, "AccessDenied"), (method, path, reply)
    for query in ({"versions": ""}, {"uploads": ""}, {"versioning": ""}):
        assert raw.request("GET", raw.path(secret), query, sign=False).status == 403, query


def test_nobody_in_chunks(raw, secret):
    """s3s routes such a body undecoded: it must not get as far."""
    headers = {
        "x-amz-content-sha256": STREAMING_UNSIGNED_TRAILER,
        "x-amz-decoded-content-length": "4",
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    sent = unsigned_chunks(b"evil", f"x-amz-checksum-crc32:{checksum('crc32', b'evil')}")
    assert raw.request("PUT", raw.path(secret, "k"), headers=headers, body=sent, sign=False).status in (400, 403)
    assert raw.get(secret, "k").body == b"secret"


def test_any_region_signs(server, secret):
    """Unless `--region` is configured."""
    for region in ("us-east-1", "eu-central-1", "garage", "auto"):
        with Raw(server, Signer(region=region)) as raw:
            assert raw.get(secret, "k").body == b"secret", region


def test_configured_region(tmp_path):
    with Server(tmp_path / "data", args=["--region", "eu-central-1"]) as server:
        with Raw(server, Signer(region="eu-central-1")) as raw:
            assert raw.request("PUT", "/region-test").status == 200
        with Raw(server, Signer(region="us-east-1")) as raw:
            reply = raw.request("GET", "/region-test")
            assert 400 <= reply.status < 404 and reply.code in (
                "AuthorizationHeaderMalformed",
                "SignatureDoesNotMatch",
                "AccessDenied",
                "InvalidRequest",
            ), reply


def test_clock_skew(raw, secret):
    for offset in (-20 * 60, 20 * 60):
        reply = raw.get(secret, "k", stamp=timestamp(offset))
        assert (reply.status, reply.code) == (403, "RequestTimeTooSkewed"), reply
    for offset in (-10 * 60, 10 * 60):
        assert raw.get(secret, "k", stamp=timestamp(offset)).status == 200


def test_signature_covers_everything(raw, secret):
    """Method, path, query, signed headers: changing any of them after signing spoils the signature."""
    for spoil in (
        lambda headers: headers.update({"x-amz-date": timestamp(-1)}),
        lambda headers: headers.update({"x-amz-content-sha256": "0" * 64}),
        lambda headers: headers.update({"range": "bytes=1-2"}),
        lambda headers: headers.update(authorization=headers["authorization"].replace("/s3/", "/iam/")),
        lambda headers: headers.update(authorization=headers["authorization"][:-4] + "0000"),
        lambda headers: headers.update(authorization="AWS4-HMAC-SHA256 garbage"),
        lambda headers: headers.update(authorization=""),
    ):
        reply = raw.get(secret, "k", headers={"range": "bytes=0-0"}, spoil=spoil)
        assert 400 <= reply.status <= 403 or reply.code == "NotImplemented", reply
    signed = raw.presign("GET", raw.path(secret, "k"))
    host = {"host": raw.endpoint.netloc}
    assert raw.send("GET", signed, host).body == b"secret"
    raw.put(secret, "k2", b"other")
    assert raw.send("GET", signed.replace("/k?", "/k2?"), host).status == 403
    assert raw.send("DELETE", signed, host).status == 403
    assert raw.send("GET", signed + "&versionId=null", host).status == 403
    assert raw.send("GET", signed + "&response-content-type=text/html", host).status == 403
    assert raw.get(secret, "k").body == b"secret"


def test_presigned(server, raw, secret):
    """As boto3 makes them, for reading and writing, and used with a plain HTTP client.

    In regions that it knows as old ones, such as us-east-1, boto3 presigns with SigV2 unless it is told otherwise.
    """
    s3 = boto(server, signature_version="s3v4")
    path_of = lambda url: url[url.index("/", 8) :]
    host = {"host": raw.endpoint.netloc}
    url = s3.generate_presigned_url("get_object", Params={"Bucket": secret, "Key": "k"}, ExpiresIn=60)
    assert raw.send("GET", path_of(url), host).body == b"secret"
    assert raw.presigned("HEAD", raw.path(secret, "k")).status == 200
    assert raw.presigned("PUT", raw.path(secret, "up load"), body=b"uploaded").status == 200
    assert raw.get(secret, "up load").body == b"uploaded"
    assert raw.presigned("DELETE", raw.path(secret, "up load")).status == 204


def test_presigned_that_expired(raw, secret):
    assert raw.presigned("GET", raw.path(secret, "k"), expires=60, stamp=timestamp(-50)).status == 200
    reply = raw.presigned("GET", raw.path(secret, "k"), expires=60, stamp=timestamp(-70))
    assert (reply.status, reply.code) == (403, "AccessDenied"), reply
    for expires in (8 * 86_400, 30 * 86_400, 0, -5):
        assert 400 <= raw.presigned("GET", raw.path(secret, "k"), expires=expires).status <= 403, expires
    assert raw.presigned("GET", raw.path(secret, "k"), expires=7 * 86_400).status == 200
    future = raw.presigned("GET", raw.path(secret, "k"), stamp=timestamp(3600))
    assert 400 <= future.status <= 403, future


@pytest.mark.parametrize(
    "header",
    [
        "x-amz-copy-source",
        "x-amz-acl",
        "x-amz-tagging",
        "x-amz-meta-evil",
        "x-amz-storage-class",
        "x-amz-website-redirect-location",
        "x-amz-checksum-crc32",
        "x-amz-object-lock-mode",
        "x-amz-server-side-encryption",
        "x-amz-security-token",
    ],
)
def test_headers_that_nobody_signed(raw, secret, header):
    """A presigned upload must not be turned into a copy of something else, whoever holds the URL."""
    value = f"{secret}/k" if header == "x-amz-copy-source" else "private"
    for reply in (
        raw.presigned("PUT", raw.path(secret, "new"), body=b"x", extra={header: value}),
        raw.put(secret, "new", b"x", unsigned={header: value}),
    ):
        assert 400 <= reply.status <= 403, reply
    assert raw.get(secret, "new").status == 404


def test_sigv2_is_off(raw, secret):
    date = email.utils.formatdate(usegmt=True)
    text = f"GET\n\n\n{date}\n/{secret}/k"
    signature = base64.b64encode(hmac.new(SECRET_KEY.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers = {"date": date, "authorization": f"AWS {ACCESS_KEY}:{signature}"}
    reply = raw.request("GET", raw.path(secret, "k"), headers=headers, sign=False)
    assert 400 <= reply.status <= 403 or reply.status == 501, reply
    expires = "9999999999"
    signature = base64.b64encode(
        hmac.new(SECRET_KEY.encode(), f"GET\n\n\n{expires}\n/{secret}/k".encode(), hashlib.sha1).digest()
    ).decode()
    query = {"AWSAccessKeyId": ACCESS_KEY, "Expires": expires, "Signature": signature}
    reply = raw.request("GET", raw.path(secret, "k"), query, sign=False)
    assert 400 <= reply.status <= 403 or reply.status == 501, reply


def test_session_tokens_are_not_ignored(raw, secret):
    """There are no temporary keys: a token with a permanent key is a mistake that must be told."""
    reply = raw.get(secret, "k", headers={"x-amz-security-token": "token"})
    assert 400 <= reply.status <= 403 or reply.status == 501, reply


def test_admin_api_is_signed_too(raw, server):
    for path in ("/_elton/v1/status", "/_elton/v1/buckets", "/_elton/v1/gc"):
        for method in ("GET", "POST"):
            assert raw.request(method, path, sign=False).status in (401, 403), path
    with Raw(server, Signer(secret="wrong")) as stranger:
        assert stranger.request("GET", "/_elton/v1/status").status == 403


def test_two_signatures(raw, secret):
    """A header and a query that both sign: neither wins quietly."""
    url = raw.presign("GET", raw.path(secret, "k"))
    headers = {
        "host": raw.endpoint.netloc,
        "authorization": "AWS4-HMAC-SHA256 Credential=x,SignedHeaders=host,Signature=y",
    }
    assert 400 <= raw.send("GET", url, headers).status <= 403


def test_replies_tell_no_secret(server, raw, secret):
    with Raw(server, Signer(secret="wrong")) as stranger:
        reply = stranger.get(secret, "k")
    assert SECRET_KEY.encode() not in reply.body
    assert SECRET_KEY not in server.log


def test_unsigned_payload_over_both_schemes(server, secret):
    s3 = boto(server)
    s3.put_object(Bucket=secret, Key="x", Body=b"data")
    with Raw(server) as raw:
        assert raw.put(secret, "x", b"data", payload=UNSIGNED).status == 200
