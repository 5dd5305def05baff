//! Access control lists: one owner with full control, and nothing else.
//!
//! A request for just that is honoured; any other was refused by its header, or is here.

use s3s::dto::{
    AccessControlPolicy, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput, GetObjectAclOutput, Grant, Grantee,
    Permission, PutBucketAclInput, PutBucketAclOutput, PutObjectAclInput, PutObjectAclOutput, Type,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, not_implemented};
use super::target::which;
use super::{Edge, keys, numbered};

/// GetBucketAcl.
pub async fn get_bucket_acl(
    edge: &Edge,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    edge.require_bucket(&at).await?;
    Ok(S3Response::new(GetBucketAclOutput { owner: Some(edge.owner()), grants: Some(grants(edge)) }))
}

/// PutBucketAcl.
pub async fn put_bucket_acl(
    edge: &Edge,
    request: S3Request<PutBucketAclInput>,
) -> S3Result<S3Response<PutBucketAclOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    edge.require_bucket(&at).await?;
    check(edge, request.input.acl.is_some(), request.input.access_control_policy.as_ref())?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

/// GetObjectAcl.
pub async fn get_object_acl(
    edge: &Edge,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let path = keys::parse(&request.input.key)?;
    let which = which(&edge.cluster, &at, request.input.version_id.as_deref()).await?;
    let version = edge.cluster.head(&at, &path, which).await.map_err(from_core)?;
    let output = GetObjectAclOutput { owner: Some(edge.owner()), grants: Some(grants(edge)), request_charged: None };
    Ok(numbered(output, version.number))
}

/// PutObjectAcl.
pub async fn put_object_acl(
    edge: &Edge,
    request: S3Request<PutObjectAclInput>,
) -> S3Result<S3Response<PutObjectAclOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let path = keys::parse(&request.input.key)?;
    let which = which(&edge.cluster, &at, request.input.version_id.as_deref()).await?;
    let version = edge.cluster.head(&at, &path, which).await.map_err(from_core)?;
    check(edge, request.input.acl.is_some(), request.input.access_control_policy.as_ref())?;
    Ok(numbered(PutObjectAclOutput { request_charged: None }, version.number))
}

fn grants(edge: &Edge) -> Vec<Grant> {
    let grantee = Grantee {
        display_name: Some(edge.owner.display_name.clone()),
        email_address: None,
        id: Some(edge.owner.id.clone()),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
}

/// Honours what is the case: `x-amz-acl: private`, or the owner's full control spelt out.
fn check(edge: &Edge, canned: bool, policy: Option<&AccessControlPolicy>) -> S3Result<()> {
    let Some(policy) = policy else {
        // Which canned ones are honoured was checked with the header.
        return if canned { Ok(()) } else { Err(S3Error::new(S3ErrorCode::MissingSecurityHeader)) };
    };
    let is_owner = |id: Option<&String>| id == Some(&edge.owner.id);
    let others = policy.grants.iter().flatten().any(|grant| {
        let full = grant.permission.as_ref().is_some_and(|given| given.as_str() == Permission::FULL_CONTROL);
        !full || !is_owner(grant.grantee.as_ref().and_then(|grantee| grantee.id.as_ref()))
    });
    let another_owner = policy.owner.as_ref().is_some_and(|owner| !is_owner(owner.id.as_ref()));
    let none = policy.grants.as_ref().is_none_or(Vec::is_empty);
    if others || another_owner || none {
        return Err(not_implemented("an access control list other than the owner's full control"));
    }
    Ok(())
}
