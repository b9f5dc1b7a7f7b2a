// Which operation a request is.

#include "s3.hpp"

namespace kumo::bench {
namespace {

std::string text(std::optional<std::string_view> parameter) {
  return parameter ? percent_decoded(*parameter) : std::string();
}

Operation of_bucket(const Request& request) {
  const auto has = [&](std::string_view name) { return request.parameter(name).has_value(); };
  if (request.method == "PUT") return Operation::kCreateBucket;
  if (request.method == "HEAD") return Operation::kHeadBucket;
  if (request.method == "DELETE") return Operation::kDeleteBucket;
  if (request.method == "POST" && has("delete")) return Operation::kDeleteObjects;
  if (request.method != "GET") return Operation::kUnknown;
  if (has("location")) return Operation::kGetBucketLocation;
  if (has("versioning")) return Operation::kGetBucketVersioning;
  if (has("uploads")) return Operation::kListUploads;
  if (has("list-type") || request.query.empty() || has("prefix")) return Operation::kListObjects;
  return Operation::kUnknown;
}

Operation of_object(const Request& request) {
  const auto has = [&](std::string_view name) { return request.parameter(name).has_value(); };
  if (request.method == "POST") {
    if (has("uploads")) return Operation::kCreateUpload;
    return has("uploadId") ? Operation::kCompleteUpload : Operation::kUnknown;
  }
  if (request.method == "PUT") {
    const bool copy = !request.header("x-amz-copy-source").empty();
    if (has("uploadId")) return copy ? Operation::kUnknown : Operation::kUploadPart;
    return copy ? Operation::kCopyObject : Operation::kPutObject;
  }
  if (request.method == "DELETE") {
    return has("uploadId") ? Operation::kAbortUpload : Operation::kDeleteObject;
  }
  if (request.method == "HEAD") return Operation::kHeadObject;
  if (request.method != "GET" || has("uploadId") || has("acl") || has("tagging") ||
      has("attributes")) {
    return Operation::kUnknown;
  }
  return Operation::kGetObject;
}

Operation operation_of(const Request& request, const Call& call) {
  if (call.bucket == "-" && call.key == "statistics") return Operation::kStatistics;
  if (call.bucket.empty()) {
    return request.method == "GET" ? Operation::kListBuckets : Operation::kUnknown;
  }
  return call.key.empty() ? of_bucket(request) : of_object(request);
}

}  // namespace

Body::Use S3::begin(const Request& request, Call& call) {
  call = Call();
  std::string_view path = request.path.substr(1);
  const auto slash = path.find('/');
  call.bucket = percent_decoded(path.substr(0, slash));
  if (slash != std::string_view::npos) call.key = percent_decoded(path.substr(slash + 1));
  call.path = call.bucket + '/' + call.key;
  call.operation = operation_of(request, call);
  ++statistics_.requests[static_cast<std::size_t>(call.operation)];
  switch (call.operation) {
    case Operation::kUploadPart:
      call.part = static_cast<unsigned>(
          to_number(request.parameter("partNumber").value_or("")).value_or(0));
      [[fallthrough]];
    case Operation::kAbortUpload:
      call.upload = text(request.parameter("uploadId"));
      break;
    case Operation::kCompleteUpload:
      call.upload = text(request.parameter("uploadId"));
      return Body::Use::kCollect;
    case Operation::kDeleteObjects:
      return Body::Use::kCollect;
    case Operation::kListObjects:
      call.prefix = text(request.parameter("prefix"));
      call.delimiter = text(request.parameter("delimiter"));
      call.after = text(request.parameter("continuation-token"));
      if (call.after.empty()) call.after = text(request.parameter("start-after"));
      break;
    case Operation::kGetObject:
    case Operation::kHeadObject:
      call.range = request.header("range");
      call.wants_checksum = equal_ignoring_case(request.header("x-amz-checksum-mode"), "enabled");
      break;
    default:
      break;
  }
  const bool has_content =
      call.operation == Operation::kPutObject || call.operation == Operation::kUploadPart;
  return check_ && has_content ? Body::Use::kCheck : Body::Use::kDiscard;
}

}  // namespace kumo::bench
