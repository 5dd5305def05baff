//! Completes S3's error documents: `Resource`, `RequestId` and `HostId` are known here and not where errors arise.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

const END: &str = "</Error>";

/// What the request was about and who answered it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The path that was asked for.
    pub resource: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The process's id.
    pub host_id: &'a str,
}

/// Adds what is missing to an error document; everything else stays as it is.
#[must_use]
pub fn complete(response: Response<s3s::Body>, facts: Facts<'_>) -> Response<s3s::Body> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let completed = response.body().bytes().and_then(|document| complete_document(&document, facts));
    let Some(document) = completed else { return response };
    let (mut parts, _) = response.into_parts();
    // hyper states the length of the new document.
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, s3s::Body::from(document))
}

/// An error document of its own, for refusals that never reach the S3 service.
#[must_use]
pub fn page(status: StatusCode, code: &str, message: &str, facts: Facts<'_>) -> Response<s3s::Body> {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message></Error>",
        escape(message)
    );
    let mut response = Response::new(s3s::Body::from(document));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    complete(response, facts)
}

fn complete_document(document: &Bytes, facts: Facts<'_>) -> Option<String> {
    let text = std::str::from_utf8(document).ok()?;
    let begin = text.strip_suffix(END)?;
    let mut completed = begin.to_owned();
    for (element, value) in [("Resource", facts.resource), ("RequestId", facts.request_id), ("HostId", facts.host_id)] {
        if !begin.contains(&format!("<{element}>")) {
            completed.push_str(&format!("<{element}>{}</{element}>", escape(value)));
        }
    }
    completed.push_str(END);
    Some(completed)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts { resource: "/photos/a&b", request_id: "0123", host_id: "host" };

    #[test]
    fn missing_elements_are_added_once() {
        let document = Bytes::from_static(b"<?xml?><Error><Code>NoSuchKey</Code></Error>");
        let completed = complete_document(&document, FACTS).expect("an error document");
        let rest = "<Resource>/photos/a&amp;b</Resource><RequestId>0123</RequestId><HostId>host</HostId></Error>";
        assert_eq!(completed, format!("<?xml?><Error><Code>NoSuchKey</Code>{rest}"));
        assert_eq!(complete_document(&Bytes::from(completed.clone()), FACTS), Some(completed));
    }

    #[test]
    fn other_documents_are_left_alone() {
        assert_eq!(complete_document(&Bytes::from_static(b"{\"code\":\"x\"}"), FACTS), None);
    }
}
