//! Requests that are refused by their headers alone, before anybody reads further.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};

use super::error_page::{self, Facts};

/// The media type of a POST Object form.
const FORM: &[u8] = b"multipart/form-data";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A form: the S3 service would read and keep its fields to find the signature in them, whoever sent it.
    Form,
    /// Signed by query and by header: nobody could say who asked.
    TwoSignatures,
}

impl Refusal {
    /// Why `request` is refused, if it is.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if *request.method() == Method::POST && is_form(request) {
            return Some(Refusal::Form);
        }
        (request.headers().contains_key(AUTHORIZATION) && is_signed_by_query(request)).then_some(Refusal::TwoSignatures)
    }

    /// What the client is told.
    #[must_use]
    pub fn page(self, facts: Facts<'_>) -> Response<s3s::Body> {
        match self {
            Refusal::Form => {
                let message = "POST Object forms (multipart/form-data) are not implemented; use PUT, signed or with a \
                               presigned URL.";
                error_page::page(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message, facts)
            }
            Refusal::TwoSignatures => {
                let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature \
                               query string parameter or the Authorization header should be specified.";
                error_page::page(StatusCode::BAD_REQUEST, "InvalidArgument", message, facts)
            }
        }
    }
}

/// Whether anything may take the body for a form: more is refused than s3s would read, never less.
fn is_form<B>(request: &Request<B>) -> bool {
    request.headers().get_all(CONTENT_TYPE).iter().any(|kind| {
        let kind = kind.as_bytes().trim_ascii_start();
        kind.get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
    })
}

fn is_signed_by_query<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, _)| matches!(&*name, "X-Amz-Algorithm" | "X-Amz-Signature" | "Signature" | "AWSAccessKeyId"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &str, uri: &str, headers: &[(&str, &[u8])]) -> Option<Refusal> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Refusal::of(&request.body(()).expect("a request"))
    }

    #[test]
    fn forms_are_refused_however_they_are_spelled() {
        for kind in [&b"multipart/form-data; boundary=q"[..], b"Multipart/Form-Data", b"multipart/form-data+x; a=\xff"]
        {
            assert_eq!(refusal("POST", "/b", &[("content-type", kind)]), Some(Refusal::Form));
        }
        let twice: [(&str, &[u8]); 2] = [("content-type", b"text/plain"), ("content-type", b"multipart/form-data")];
        assert_eq!(refusal("POST", "/_elton/v1/gc", &twice), Some(Refusal::Form));
        // The type of an object is the client's business.
        assert_eq!(refusal("PUT", "/b/k", &[("content-type", b"multipart/form-data")]), None);
        assert_eq!(refusal("POST", "/b/k?uploads", &[("content-type", b"multipart/mixed")]), None);
    }

    #[test]
    fn one_signature_is_enough() {
        let header: &[(&str, &[u8])] = &[("authorization", b"Bearer Credential=VICTIM/x")];
        assert_eq!(refusal("GET", "/b/k?X-Amz-Signature=0", header), Some(Refusal::TwoSignatures));
        assert_eq!(refusal("GET", "/b/k?X%2DAmz-Signature=0", header), Some(Refusal::TwoSignatures));
        assert_eq!(refusal("GET", "/b/k?X-Amz-Signature=0", &[]), None);
        assert_eq!(refusal("GET", "/b/k?versionId=1", header), None);
    }
}
