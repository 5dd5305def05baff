//! The operations, one line each: which function serves which.

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use super::configuration::{self, Configuration};
use super::{
    S3Edge, acl, attributes, buckets, copy, delete, get, list, multipart, part, put, tagging, uploads, versioning,
};

/// Implements s3s's trait from tables: what is not in one of them answers 501.
macro_rules! operations {
    (
        served { $($method:ident: $input:ident => $output:ident = $function:path;)* }
        none { $($none:ident: $none_input:ident => $none_output:ident = $configuration:ident;)* }
        nothing { $($nothing:ident: $nothing_input:ident => $nothing_output:ident = $answer:expr;)* }
        unlocked { $($unlocked:ident: $unlocked_input:ident => $unlocked_output:ident;)* }
    ) => {
        #[async_trait::async_trait]
        impl S3 for S3Edge {
            $(
                async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    $function(&self.0, request).await
                }
            )*
            $(
                async fn $none(&self, request: S3Request<$none_input>) -> S3Result<S3Response<$none_output>> {
                    configuration::none(&self.0, request, |input| &input.bucket, Configuration::$configuration).await
                }
            )*
            $(
                async fn $nothing(&self, request: S3Request<$nothing_input>) -> S3Result<S3Response<$nothing_output>> {
                    configuration::nothing(&self.0, request, |input| &input.bucket, $answer).await
                }
            )*
            $(
                async fn $unlocked(&self, request: S3Request<$unlocked_input>) -> S3Result<S3Response<$unlocked_output>> {
                    configuration::no_object_lock(&self.0, request, |input| {
                        (&input.bucket, &input.key, input.version_id.as_deref())
                    })
                    .await
                }
            )*
        }
    };
}

operations! {
    served {
        abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput = multipart::abort_multipart_upload;
        complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput = multipart::complete_multipart_upload;
        copy_object: CopyObjectInput => CopyObjectOutput = copy::copy_object;
        create_bucket: CreateBucketInput => CreateBucketOutput = buckets::create_bucket;
        create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput = multipart::create_multipart_upload;
        delete_bucket: DeleteBucketInput => DeleteBucketOutput = buckets::delete_bucket;
        delete_bucket_tagging: DeleteBucketTaggingInput => DeleteBucketTaggingOutput = tagging::delete_bucket_tagging;
        delete_object: DeleteObjectInput => DeleteObjectOutput = delete::delete_object;
        delete_object_tagging: DeleteObjectTaggingInput => DeleteObjectTaggingOutput = tagging::delete_object_tagging;
        delete_objects: DeleteObjectsInput => DeleteObjectsOutput = delete::delete_objects;
        get_bucket_acl: GetBucketAclInput => GetBucketAclOutput = acl::get_bucket_acl;
        get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput = buckets::get_bucket_location;
        get_bucket_tagging: GetBucketTaggingInput => GetBucketTaggingOutput = tagging::get_bucket_tagging;
        get_bucket_versioning: GetBucketVersioningInput => GetBucketVersioningOutput = versioning::get_bucket_versioning;
        get_object: GetObjectInput => GetObjectOutput = get::get_object;
        get_object_acl: GetObjectAclInput => GetObjectAclOutput = acl::get_object_acl;
        get_object_attributes: GetObjectAttributesInput => GetObjectAttributesOutput = attributes::get_object_attributes;
        get_object_tagging: GetObjectTaggingInput => GetObjectTaggingOutput = tagging::get_object_tagging;
        head_bucket: HeadBucketInput => HeadBucketOutput = buckets::head_bucket;
        head_object: HeadObjectInput => HeadObjectOutput = get::head_object;
        list_buckets: ListBucketsInput => ListBucketsOutput = buckets::list_buckets;
        list_multipart_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput = uploads::list_multipart_uploads;
        list_objects: ListObjectsInput => ListObjectsOutput = list::list_objects;
        list_objects_v2: ListObjectsV2Input => ListObjectsV2Output = list::list_objects_v2;
        list_parts: ListPartsInput => ListPartsOutput = uploads::list_parts;
        put_bucket_acl: PutBucketAclInput => PutBucketAclOutput = acl::put_bucket_acl;
        put_bucket_logging: PutBucketLoggingInput => PutBucketLoggingOutput = configuration::put_bucket_logging;
        put_bucket_notification_configuration: PutBucketNotificationConfigurationInput => PutBucketNotificationConfigurationOutput = configuration::put_bucket_notification;
        put_bucket_request_payment: PutBucketRequestPaymentInput => PutBucketRequestPaymentOutput = configuration::put_bucket_request_payment;
        put_bucket_tagging: PutBucketTaggingInput => PutBucketTaggingOutput = tagging::put_bucket_tagging;
        put_bucket_versioning: PutBucketVersioningInput => PutBucketVersioningOutput = versioning::put_bucket_versioning;
        put_object: PutObjectInput => PutObjectOutput = put::put_object;
        put_object_acl: PutObjectAclInput => PutObjectAclOutput = acl::put_object_acl;
        put_object_tagging: PutObjectTaggingInput => PutObjectTaggingOutput = tagging::put_object_tagging;
        upload_part: UploadPartInput => UploadPartOutput = part::upload_part;
        upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput = part::upload_part_copy;
    }
    none {
        get_bucket_analytics_configuration: GetBucketAnalyticsConfigurationInput => GetBucketAnalyticsConfigurationOutput = ById;
        get_bucket_cors: GetBucketCorsInput => GetBucketCorsOutput = Cors;
        get_bucket_encryption: GetBucketEncryptionInput => GetBucketEncryptionOutput = Encryption;
        get_bucket_intelligent_tiering_configuration: GetBucketIntelligentTieringConfigurationInput => GetBucketIntelligentTieringConfigurationOutput = ById;
        get_bucket_inventory_configuration: GetBucketInventoryConfigurationInput => GetBucketInventoryConfigurationOutput = ById;
        get_bucket_lifecycle_configuration: GetBucketLifecycleConfigurationInput => GetBucketLifecycleConfigurationOutput = Lifecycle;
        get_bucket_metrics_configuration: GetBucketMetricsConfigurationInput => GetBucketMetricsConfigurationOutput = ById;
        get_bucket_ownership_controls: GetBucketOwnershipControlsInput => GetBucketOwnershipControlsOutput = OwnershipControls;
        get_bucket_policy: GetBucketPolicyInput => GetBucketPolicyOutput = Policy;
        get_bucket_policy_status: GetBucketPolicyStatusInput => GetBucketPolicyStatusOutput = Policy;
        get_bucket_replication: GetBucketReplicationInput => GetBucketReplicationOutput = Replication;
        get_bucket_website: GetBucketWebsiteInput => GetBucketWebsiteOutput = Website;
        get_object_lock_configuration: GetObjectLockConfigurationInput => GetObjectLockConfigurationOutput = ObjectLock;
        get_public_access_block: GetPublicAccessBlockInput => GetPublicAccessBlockOutput = PublicAccessBlock;
    }
    nothing {
        delete_bucket_cors: DeleteBucketCorsInput => DeleteBucketCorsOutput = Default::default();
        delete_bucket_encryption: DeleteBucketEncryptionInput => DeleteBucketEncryptionOutput = Default::default();
        delete_bucket_lifecycle: DeleteBucketLifecycleInput => DeleteBucketLifecycleOutput = Default::default();
        delete_bucket_ownership_controls: DeleteBucketOwnershipControlsInput => DeleteBucketOwnershipControlsOutput = Default::default();
        delete_bucket_policy: DeleteBucketPolicyInput => DeleteBucketPolicyOutput = Default::default();
        delete_bucket_replication: DeleteBucketReplicationInput => DeleteBucketReplicationOutput = Default::default();
        delete_bucket_website: DeleteBucketWebsiteInput => DeleteBucketWebsiteOutput = Default::default();
        delete_public_access_block: DeletePublicAccessBlockInput => DeletePublicAccessBlockOutput = Default::default();
        get_bucket_accelerate_configuration: GetBucketAccelerateConfigurationInput => GetBucketAccelerateConfigurationOutput = Default::default();
        get_bucket_logging: GetBucketLoggingInput => GetBucketLoggingOutput = Default::default();
        get_bucket_notification_configuration: GetBucketNotificationConfigurationInput => GetBucketNotificationConfigurationOutput = Default::default();
        get_bucket_request_payment: GetBucketRequestPaymentInput => GetBucketRequestPaymentOutput = GetBucketRequestPaymentOutput {
            payer: Some(Payer::from_static(Payer::BUCKET_OWNER)),
        };
        list_bucket_analytics_configurations: ListBucketAnalyticsConfigurationsInput => ListBucketAnalyticsConfigurationsOutput = ListBucketAnalyticsConfigurationsOutput {
            is_truncated: Some(false),
            ..Default::default()
        };
        list_bucket_intelligent_tiering_configurations: ListBucketIntelligentTieringConfigurationsInput => ListBucketIntelligentTieringConfigurationsOutput = ListBucketIntelligentTieringConfigurationsOutput {
            is_truncated: Some(false),
            ..Default::default()
        };
        list_bucket_inventory_configurations: ListBucketInventoryConfigurationsInput => ListBucketInventoryConfigurationsOutput = ListBucketInventoryConfigurationsOutput {
            is_truncated: Some(false),
            ..Default::default()
        };
        list_bucket_metrics_configurations: ListBucketMetricsConfigurationsInput => ListBucketMetricsConfigurationsOutput = ListBucketMetricsConfigurationsOutput {
            is_truncated: Some(false),
            ..Default::default()
        };
    }
    unlocked {
        get_object_legal_hold: GetObjectLegalHoldInput => GetObjectLegalHoldOutput;
        get_object_retention: GetObjectRetentionInput => GetObjectRetentionOutput;
    }
}
