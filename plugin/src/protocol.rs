//! The volume plugin protocol, as dockerd speaks it.
//!
//! <https://docs.docker.com/engine/extend/plugins_volume/>. Bodies are JSON that ends with a newline, without Content-Type;
//! no body means no fields. Failures are `{"Err": …}` with status 200: with others dockerd puts the call's name before them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::volumes::{Health, VolumeInfo};

/// What this is to dockerd.
pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// What dockerd can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What are you?
    Activate,
    /// Are your volumes this host's or a swarm's?
    Capabilities,
    /// Make a volume.
    Create,
    /// Say what a volume is.
    Get,
    /// Say which volumes there are.
    List,
    /// A container begins to use a volume.
    Mount,
    /// It ends.
    Unmount,
    /// Say where a volume is mounted.
    Path,
    /// Forget a volume.
    Remove,
}

impl Call {
    /// By the path it is asked at.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/Plugin.Activate" => Call::Activate,
            "/VolumeDriver.Capabilities" => Call::Capabilities,
            "/VolumeDriver.Create" => Call::Create,
            "/VolumeDriver.Get" => Call::Get,
            "/VolumeDriver.List" => Call::List,
            "/VolumeDriver.Mount" => Call::Mount,
            "/VolumeDriver.Unmount" => Call::Unmount,
            "/VolumeDriver.Path" => Call::Path,
            "/VolumeDriver.Remove" => Call::Remove,
            _ => return None,
        })
    }
}

/// The fields of all requests: each call has some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Request {
    /// The volume.
    pub name: String,
    /// Who uses it: a container, mostly, but more than one use can have the same.
    #[serde(rename = "ID")]
    pub id: String,
    /// The options of `Create`: null where none were given.
    pub opts: Option<BTreeMap<String, String>>,
}

impl Request {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.trim_ascii().is_empty() { Ok(Request::default()) } else { serde_json::from_slice(body) }
    }
}

/// A reply's body.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Answer(serde_json::Value);

impl Answer {
    /// A volume driver.
    #[must_use]
    pub fn activate() -> Self {
        Answer(json!({ "Implements": ["VolumeDriver"] }))
    }

    /// Volumes are made and removed on each host.
    #[must_use]
    pub fn capabilities() -> Self {
        Answer(json!({ "Capabilities": { "Scope": "local" } }))
    }

    /// It was done.
    #[must_use]
    pub fn done() -> Self {
        Answer(json!({ "Err": "" }))
    }

    /// It was not.
    #[must_use]
    pub fn failed(reason: &str) -> Self {
        // An empty text would mean success.
        Answer(json!({ "Err": if reason.is_empty() { "the plugin failed; its log may say why" } else { reason } }))
    }

    /// A volume. `CreatedAt` is left out: dockerd takes one it cannot read for "no such volume".
    #[must_use]
    pub fn volume(info: &VolumeInfo) -> Self {
        let mut volume = entry(info);
        volume["Status"] = status(info);
        Answer(json!({ "Volume": volume, "Err": "" }))
    }

    /// All volumes.
    #[must_use]
    pub fn volumes(infos: &[VolumeInfo]) -> Self {
        let volumes: Vec<_> = infos.iter().map(entry).collect();
        Answer(json!({ "Volumes": volumes, "Err": "" }))
    }

    /// Where a volume is mounted. Never empty: dockerd would mount its own folder into the container.
    #[must_use]
    pub fn mountpoint(at: &Path) -> Self {
        match at.to_str() {
            Some(at) if at.starts_with('/') => Answer(json!({ "Mountpoint": at, "Err": "" })),
            _ => Answer::failed(&format!(
                "the mountpoint {at:?} has no name that JSON can carry: choose another --state"
            )),
        }
    }

    /// The bytes that are sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.0).expect("a value has string keys");
        bytes.push(b'\n');
        bytes
    }
}

fn entry(info: &VolumeInfo) -> serde_json::Value {
    let mut entry = json!({ "Name": info.name });
    if let Some(at) = info.mountpoint.as_ref().and_then(|at| at.to_str()) {
        entry["Mountpoint"] = at.into();
    }
    entry
}

/// What `docker volume inspect` shows.
fn status(info: &VolumeInfo) -> serde_json::Value {
    let volume = &info.volume;
    let mut status = json!({
        "bucket": volume.source.bucket,
        "number": volume.source.number,
        "snapshot": volume.asked,
        "prefix": volume.source.prefix,
        "access": "read-only",
        "uses": volume.use_count(),
    });
    let (mount, advice) = match info.health {
        Health::None => ("none", None),
        Health::Alive => ("alive", None),
        Health::Ended => ("ended", Some("restart the containers that have it: that mounts it anew")),
        Health::Silent => {
            ("silent", Some("its process does not answer; end it and restart the containers that have it"))
        }
    };
    status["mount"] = mount.into();
    if let Some(advice) = advice {
        status["advice"] = advice.into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_dockerd_sends_them() {
        let parse = |text: &str| Request::parse(text.as_bytes()).expect(text);
        assert_eq!(parse(""), Request::default());
        assert_eq!(parse("{}\n"), Request::default());
        assert_eq!(parse("{\"Name\":\"photos@42\",\"Opts\":null}\n").opts, None);
        let create = parse("{\"Name\":\"v\",\"Opts\":{\"bucket\":\"photos\",\"version\":\"42\"}}\n");
        assert_eq!(create.opts.expect("given").len(), 2);
        assert_eq!(parse("{\"Name\":\"v\",\"ID\":\"ab\",\"Newer\":[1]}\n").id, "ab");
        assert!(Request::parse(b"{").is_err());
        assert!(Request::parse(b"{\"Name\":1}").is_err());
    }

    #[test]
    fn answers_that_dockerd_would_misread_are_never_given() {
        let text = |answer: Answer| String::from_utf8(answer.to_bytes()).expect("JSON");
        assert!(text(Answer::mountpoint(Path::new(""))).contains("\"Err\":\"the"));
        assert!(!text(Answer::mountpoint(Path::new(""))).contains("Mountpoint"));
        assert!(!text(Answer::failed("")).contains("\"Err\":\"\""));
        assert_eq!(text(Answer::done()), "{\"Err\":\"\"}\n");
    }
}
