"""Never a quiet success: what Elton does not do is refused by name, what is the case anyway is honoured."""

import socket

import pytest

from raw import Raw, md5
from test_objects import refused

GIB = 1 << 30

# Headers of a PUT that would change behaviour, and the word by which the refusal must name them.
HEADERS = [
    ({"x-amz-server-side-encryption": "AES256"}, "x-amz-server-side-encryption"),
    ({"x-amz-server-side-encryption": "aws:kms"}, "x-amz-server-side-encryption"),
    ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, "x-amz-server-side-encryption-customer-algorithm"),
    ({"x-amz-object-lock-mode": "GOVERNANCE"}, "x-amz-object-lock-mode"),
    ({"x-amz-object-lock-legal-hold": "ON"}, "x-amz-object-lock-legal-hold"),
    ({"x-amz-acl": "public-read"}, "x-amz-acl"),
    ({"x-amz-grant-read": "uri=http://acs.amazonaws.com/groups/global/AllUsers"}, "x-amz-grant-read"),
    ({"x-amz-storage-class": "GLACIER"}, "x-amz-storage-class"),
    ({"x-amz-write-offset-bytes": "5"}, "x-amz-write-offset-bytes"),
]
# Sub-resources that nobody can set yet.
CONFIGURATIONS = [
    "acl",
    "accelerate",
    "analytics",
    "cors",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "website",
]


@pytest.mark.parametrize("headers, name", HEADERS, ids=lambda value: value if isinstance(value, str) else "")
def test_headers_are_refused_before_the_body_is_read(raw, bucket, headers, name):
    """A GiB is announced and never sent: the answer comes all the same, and names what is not implemented."""
    reply = raw.put(bucket, "k", b"", headers, payload="UNSIGNED-PAYLOAD", declared=GIB)
    assert (reply.status, reply.code) == (501, "NotImplemented"), reply
    assert name in reply.message.lower(), reply
    assert raw.get(bucket, "k").status == 404
    # The same on the other ways to make an object.
    begun = raw.request("POST", raw.path(bucket, "k"), {"uploads": ""}, headers)
    copied = raw.put(bucket, "copy", b"", headers | {"x-amz-copy-source": f"{bucket}/none"})
    if "write-offset" not in name:
        assert begun.status == 501 and copied.status == 501, (begun, copied)


@pytest.mark.parametrize("subresource", CONFIGURATIONS)
def test_configurations_are_refused(raw, bucket, subresource):
    query = {subresource: ""}
    if subresource in ("analytics", "intelligent-tiering", "inventory", "metrics"):
        query["id"] = "x"
    document = b"<X><Y>z</Y></X>" if subresource != "policy" else b'{"Version":"2012-10-17","Statement":[]}'
    reply = raw.request("PUT", raw.path(bucket), query, body=document)
    assert reply.status in (400, 501), reply
    if reply.status == 501:
        assert reply.code == "NotImplemented" and len(reply.message) > 10, reply
    else:
        # Those of which one value is the case anyway read the document first.
        assert subresource in ("acl", "requestPayment", "ownershipControls", "accelerate", "logging", "notification"), (
            reply
        )
        assert reply.code == "MalformedXML"


@pytest.mark.parametrize(
    "method, query",
    [
        ("GET", {"torrent": ""}),
        ("POST", {"select": "", "select-type": "2"}),
        ("POST", {"restore": ""}),
        ("PUT", {"retention": ""}),
        ("PUT", {"legal-hold": ""}),
    ],
)
def test_object_operations_are_refused(raw, bucket, method, query):
    raw.put(bucket, "k", b"x")
    reply = raw.request(method, raw.path(bucket, "k"), query, body=b"<X/>" if method != "GET" else b"")
    # AWS answers InvalidRequest to a retention where the bucket has no object lock: so it is here.
    assert (
        reply.status == 501
        and reply.code == "NotImplemented"
        or (reply.status == 400 and next(iter(query)) in ("retention", "legal-hold"))
    ), reply


def test_form_upload_is_refused(server, raw, bucket):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    with Raw(server, timeout=10) as impatient:
        reply = impatient.request("POST", raw.path(bucket), headers=headers, sign=False, declared=GIB)
    assert reply.status in (403, 501), reply
    reply = raw.request("POST", raw.path(bucket), headers=headers, body=b"--x--\r\n")
    assert reply.status in (400, 403, 501), reply


def test_what_is_not_configured(s3, bucket):
    """AWS's own words for "there is none"."""
    none = {
        s3.get_bucket_policy: "NoSuchBucketPolicy",
        s3.get_bucket_policy_status: "NoSuchBucketPolicy",
        s3.get_bucket_cors: "NoSuchCORSConfiguration",
        s3.get_bucket_lifecycle_configuration: "NoSuchLifecycleConfiguration",
        s3.get_bucket_encryption: "ServerSideEncryptionConfigurationNotFoundError",
        s3.get_bucket_website: "NoSuchWebsiteConfiguration",
        s3.get_bucket_replication: "ReplicationConfigurationNotFoundError",
        s3.get_object_lock_configuration: "ObjectLockConfigurationNotFoundError",
        s3.get_public_access_block: "NoSuchPublicAccessBlockConfiguration",
        s3.get_bucket_tagging: "NoSuchTagSet",
    }
    for call, code in none.items():
        assert refused(call, Bucket=bucket) == (code, 404), code
    strip = lambda reply: {name: value for name, value in reply.items() if name != "ResponseMetadata"}
    assert strip(s3.get_bucket_logging(Bucket=bucket)) == {}
    assert strip(s3.get_bucket_notification_configuration(Bucket=bucket)) == {}
    assert strip(s3.get_bucket_accelerate_configuration(Bucket=bucket)) == {}
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert refused(s3.get_bucket_ownership_controls, Bucket=bucket) == ("OwnershipControlsNotFoundError", 404)
    for call in (s3.get_bucket_policy, s3.get_bucket_cors, s3.get_bucket_logging, s3.get_bucket_acl):
        assert refused(call, Bucket="no-such-bucket-here") == ("NoSuchBucket", 404)


def test_owner_has_full_control(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        (grant,) = acl["Grants"]
        assert grant["Permission"] == "FULL_CONTROL" and grant["Grantee"]["ID"] == acl["Owner"]["ID"]
    assert refused(s3.get_object_acl, Bucket=bucket, Key="none") == ("NoSuchKey", 404)


def test_what_is_the_case_anyway(s3, raw, bucket):
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    for headers in (
        {"x-amz-acl": "private"},
        {"x-amz-acl": "bucket-owner-full-control"},
        {"x-amz-storage-class": "STANDARD"},
        {"x-amz-request-payer": "requester"},
        {"x-amz-expected-bucket-owner": owner},
    ):
        assert raw.put(bucket, "k", b"x", headers).status == 200, headers
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"})
    reply = raw.put(bucket, "k", b"x", {"x-amz-expected-bucket-owner": "0" * 64})
    assert (reply.status, reply.code) == (403, "AccessDenied"), reply
    assert refused(s3.put_bucket_acl, Bucket=bucket, ACL="public-read") == ("NotImplemented", 501)
    assert (
        refused(s3.put_bucket_request_payment, Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})[1]
        == 501
    )


def test_buckets_that_ask_for_more(raw):
    for number, headers in enumerate(
        (
            {"x-amz-bucket-object-lock-enabled": "true"},
            {"x-amz-acl": "public-read"},
            {"x-amz-object-ownership": "ObjectWriter"},
        )
    ):
        name = f"asks-for-more-{number}"
        reply = raw.request("PUT", raw.path(name), headers=headers)
        assert (reply.status, reply.code) == (501, "NotImplemented"), reply
        assert raw.request("HEAD", raw.path(name)).status == 404
    for number, headers in enumerate(
        (
            {"x-amz-object-ownership": "BucketOwnerEnforced"},
            {"x-amz-acl": "private"},
            {"x-amz-bucket-object-lock-enabled": "false"},
        )
    ):
        assert raw.request("PUT", raw.path(f"asks-for-less-{number}"), headers=headers).status == 200


@pytest.mark.parametrize("document", [b"", b"<", b"<X></Y>", b"not xml", b"<Delete></Delete>", b"\xff\xfe"])
def test_documents_that_are_none(raw, bucket, document):
    reply = raw.request("POST", raw.path(bucket), {"delete": ""}, {"content-md5": md5(document)}, document)
    assert reply.status == 400 and reply.code in ("MalformedXML", "MissingRequestBodyError"), reply
    reply = raw.request("PUT", raw.path(bucket), {"versioning": ""}, body=document)
    assert reply.status == 400, reply


def test_entities_are_not_expanded(raw, bucket):
    """Neither a billion laughs nor a file of the server's."""
    document = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]><VersioningConfiguration><Status>&b;&a;</Status></VersioningConfiguration>'
    reply = raw.request("PUT", raw.path(bucket), {"versioning": ""}, body=document)
    assert reply.status == 400 and b"root:" not in reply.body, reply


def test_document_that_is_too_long(http_server):
    with Raw(http_server) as raw:
        raw.request("PUT", "/too-long")
        for size in (2 << 20, 32 << 20):
            document = b"<Tagging>" + b" " * size + b"</Tagging>"
            reply = raw.request("PUT", "/too-long", {"tagging": ""}, body=document, payload="UNSIGNED-PAYLOAD")
            assert 400 <= reply.status < 500, reply


def test_put_that_is_too_long(raw, bucket):
    reply = raw.put(bucket, "k", b"", payload="UNSIGNED-PAYLOAD", declared=5 * GIB + 1)
    assert (reply.status, reply.code) == (400, "EntityTooLarge"), reply


def test_errors_are_complete(raw, bucket):
    """Code, message, resource and request id, the same id as in the header, and never twice the same."""
    seen = set()
    for reply in (
        raw.get(bucket, "none"),
        raw.get("no-such-bucket-here", "k"),
        raw.request("GET", "/", sign=False),
        raw.put(bucket, "k", headers={"x-amz-acl": "public-read"}),
    ):
        assert reply.headers["content-type"] == "application/xml", reply.headers.items()
        assert reply.xml.tag == "Error" and reply.code and reply.message
        assert reply.xml.findtext("RequestId") == reply.headers["x-amz-request-id"]
        seen.add(reply.headers["x-amz-request-id"])
    assert len(seen) == 4
    for reply in (raw.get(bucket, "none"), raw.put(bucket, "k"), raw.head(bucket, "k")):
        assert (
            reply.headers["server"]
            and reply.headers["x-amz-request-id"]
            and reply.headers["x-amz-id-2"]
            and reply.headers["date"]
        )


@pytest.mark.parametrize(
    "method, path",
    [("PATCH", "/b/k"), ("TRACE", "/"), ("FOO", "/b"), ("OPTIONS", "/b/k"), ("POST", "/b/k"), ("PUT", "/")],
)
def test_methods_that_are_none(raw, method, path):
    reply = raw.request(method, path)
    assert 400 <= reply.status <= 501, reply


def test_garbage_on_the_wire(http_server):
    """It is answered or hung up on, and nobody else notices."""
    for sent in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 100, b"G" * 100_000):
        with socket.create_connection(("127.0.0.1", http_server.port), timeout=10) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError as error:
                assert not isinstance(error, TimeoutError), f"neither answered nor hung up on: {sent[:20]}"
        with Raw(http_server) as raw:
            assert raw.request("GET", "/").status == 200


def test_health_and_metrics(raw):
    for path in ("/_elton/live", "/_elton/ready"):
        assert raw.request("GET", path, sign=False).status == 200, path
    metrics = raw.request("GET", "/_elton/metrics", sign=False)
    assert metrics.status == 200 and b"# TYPE elton_" in metrics.body
