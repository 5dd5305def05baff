//! Uploads in parts. Whoever numbers the bucket, they are this cluster's until they are complete.

use super::Cluster;
use crate::error::Result;
use crate::master::{
    Actor, AfterUpload, CompleteRequest, ListPage, PartRequest, UploadInfo, UploadItem, UploadRequest, UploadedPart,
    UploadsQuery, Written,
};
use crate::types::{BucketName, ObjectPath, UploadId};

impl Cluster {
    /// Begins an upload.
    pub async fn begin_upload(&self, actor: &Actor, name: &BucketName, request: UploadRequest) -> Result<UploadInfo> {
        self.master.begin_upload(actor, name, request).await
    }

    /// An upload in progress.
    pub async fn upload(&self, name: &BucketName, path: &ObjectPath, upload: UploadId) -> Result<UploadInfo> {
        self.master.upload(name, path, upload).await
    }

    /// Takes a part in, in place of an earlier one of its number.
    pub async fn put_part(
        &self,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        number: u16,
        request: PartRequest,
    ) -> Result<UploadedPart> {
        self.master.put_part(name, path, upload, number, request).await
    }

    /// The parts of an upload after a number.
    pub async fn list_parts(
        &self,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<(UploadInfo, ListPage<UploadedPart, u16>)> {
        self.master.list_parts(name, path, upload, after, max).await
    }

    /// A page of the uploads in progress here, by key and id.
    pub async fn list_uploads(
        &self,
        name: &BucketName,
        query: UploadsQuery,
    ) -> Result<ListPage<UploadItem, AfterUpload>> {
        self.master.list_uploads(name, query).await
    }

    /// Ends an upload without an object.
    pub async fn abort_upload(&self, name: &BucketName, path: &ObjectPath, upload: UploadId) -> Result<()> {
        self.master.abort_upload(name, path, upload).await
    }

    /// Makes an object of an upload's parts.
    pub async fn complete_upload(
        &self,
        actor: &Actor,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        request: CompleteRequest,
    ) -> Result<Written> {
        match self.linked(name) {
            None => self.master.complete_upload(actor, name, path, upload, request).await,
            Some((member, linked)) => member.complete_upload(&linked, actor, path, upload, request).await,
        }
    }
}
