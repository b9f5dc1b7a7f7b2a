#include "s3.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "checksum/crc.hpp"
#include "checksum/crc32c.hpp"

namespace kumo::bench {
namespace {

constexpr std::string_view kDeclaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
constexpr std::string_view kNamespace = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
constexpr std::size_t kPageOfKeys = 1000;

constexpr std::array<std::string_view, kOperations> kNames = {"Statistics",
                                                              "ListBuckets",
                                                              "CreateBucket",
                                                              "HeadBucket",
                                                              "DeleteBucket",
                                                              "GetBucketLocation",
                                                              "GetBucketVersioning",
                                                              "ListObjects",
                                                              "ListUploads",
                                                              "DeleteObjects",
                                                              "PutObject",
                                                              "CopyObject",
                                                              "GetObject",
                                                              "HeadObject",
                                                              "DeleteObject",
                                                              "CreateMultipartUpload",
                                                              "UploadPart",
                                                              "CompleteMultipartUpload",
                                                              "AbortMultipartUpload",
                                                              "Unknown"};

// An answer without a body.
Response empty(int status, std::string headers = {}, bool head = false) {
  Response response;
  response.status = status;
  response.headers = std::move(headers);
  response.head = head;
  return response;
}

Response document(std::string_view root, std::string_view content) {
  Response response;
  response.headers = "Content-Type: application/xml\r\n";
  response.body.append(kDeclaration).append("<").append(root).append(kNamespace).append(">");
  response.body.append(content).append("</").append(root).append(">");
  return response;
}

std::string element(std::string_view name, std::string_view text) {
  std::string out;
  out.append("<").append(name).append(">").append(xml_escaped(text));
  return out.append("</").append(name).append(">");
}

std::string header(std::string_view name, std::string_view value) {
  std::string out(name);
  return out.append(": ").append(value).append("\r\n");
}

// The texts of all elements of a name, in a document without attributes on them.
std::vector<std::string_view> texts_of(std::string_view xml, std::string_view name) {
  const std::string open = '<' + std::string(name) + '>';
  std::vector<std::string_view> found;
  for (auto at = xml.find(open); at != std::string_view::npos; at = xml.find(open, at)) {
    at += open.size();
    const auto end = xml.find('<', at);
    if (end == std::string_view::npos) break;
    found.push_back(xml.substr(at, end - at));
  }
  return found;
}

}  // namespace

std::string_view reason_of(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 416:
      return "Range Not Satisfiable";
    default:
      return "Not Implemented";
  }
}

Response error_response(int status, std::string_view code, std::string_view message) {
  Response response;
  response.status = status;
  response.headers = "Content-Type: application/xml\r\n";
  response.body.append(kDeclaration).append("<Error>").append(element("Code", code));
  response.body.append(element("Message", message)).append("<RequestId>bench</RequestId></Error>");
  return response;
}

Response S3::finish(const Call& call, const Body& body) {
  switch (call.operation) {
    case Operation::kStatistics: {
      Response response;
      response.headers = "Content-Type: application/json\r\n";
      response.body = statistics_document();
      return response;
    }
    case Operation::kListBuckets:
      return document("ListAllMyBucketsResult",
                      "<Owner><ID>bench</ID><DisplayName>bench</DisplayName></Owner><Buckets/>");
    case Operation::kCreateBucket:
      return empty(200, header("Location", '/' + call.bucket));
    case Operation::kHeadBucket:
      return empty(200, header("x-amz-bucket-region", "us-east-1"), true);
    case Operation::kDeleteBucket:
    case Operation::kAbortUpload:
      store_.end_upload(call.upload);
      return empty(204);
    case Operation::kDeleteObject:
      store_.remove(call.path);
      return empty(204);
    case Operation::kGetBucketLocation:
      return document("LocationConstraint", "us-east-1");
    case Operation::kGetBucketVersioning:
      return document("VersioningConfiguration", "");
    case Operation::kListObjects:
      return list_objects(call);
    case Operation::kListUploads:
      return document("ListMultipartUploadsResult",
                      element("Bucket", call.bucket) + "<IsTruncated>false</IsTruncated>");
    case Operation::kDeleteObjects:
      return delete_objects(call, body);
    case Operation::kPutObject:
      return put_object(call, body);
    case Operation::kCopyObject: {
      const Object& made = store_.put(call.path, 0, 1);
      return document("CopyObjectResult", element("LastModified", iso_date(made.modified)) +
                                              element("ETag", '"' + made.etag + '"'));
    }
    case Operation::kGetObject:
    case Operation::kHeadObject:
      return get_object(call);
    case Operation::kCreateUpload:
      return document("InitiateMultipartUploadResult",
                      element("Bucket", call.bucket) + element("Key", call.key) +
                          element("UploadId", store_.begin_upload()));
    case Operation::kUploadPart:
      return upload_part(call, body);
    case Operation::kCompleteUpload:
      return complete_upload(call, body);
    case Operation::kUnknown:
      break;
  }
  return error_response(501, "NotImplemented", "the benchmarks' server does not know this request");
}

bool S3::verified(const Body& body) {
  statistics_.content_received += body.size();
  if (!check_) return true;
  switch (body.verdict()) {
    case Verdict::kVerified:
      ++statistics_.bodies_verified;
      return true;
    case Verdict::kNothingToCheck:
      ++statistics_.bodies_without_checksum;
      return true;
    case Verdict::kMismatch:
      break;
  }
  ++statistics_.bodies_damaged;
  return false;
}

Response S3::put_object(const Call& call, const Body& body) {
  if (!verified(body)) return error_response(400, "BadDigest", "the checksum does not match");
  Response response;
  response.headers = header("ETag", '"' + store_.put(call.path, body.size(), 1).etag + '"');
  if (const std::string claimed = body.claimed_crc32c(); !claimed.empty()) {
    response.headers += header("x-amz-checksum-crc32c", claimed);
    response.headers += header("x-amz-checksum-type", "FULL_OBJECT");
  }
  return response;
}

Response S3::upload_part(const Call& call, const Body& body) {
  Upload* upload = store_.upload(call.upload);
  if (upload == nullptr) return error_response(404, "NoSuchUpload", "no such upload");
  if (!verified(body)) return error_response(400, "BadDigest", "the checksum does not match");
  if (call.part < 1 || call.part > 10000) {
    return error_response(400, "InvalidArgument", "part numbers are 1 to 10000");
  }
  upload->parts[call.part] = {body.size(), body.crc32c(), check_};
  Response response;
  char etag[48];
  std::snprintf(etag, sizeof etag, "\"%032x-1\"", call.part);
  response.headers = header("ETag", etag);
  if (const std::string claimed = body.claimed_crc32c(); !claimed.empty()) {
    response.headers += header("x-amz-checksum-crc32c", claimed);
  }
  return response;
}

Response S3::complete_upload(const Call& call, const Body& body) {
  const Upload* upload = store_.upload(call.upload);
  if (upload == nullptr) return error_response(404, "NoSuchUpload", "no such upload");
  std::uint64_t size = 0;
  std::uint32_t crc32c = 0;
  bool checked = true;
  const auto numbers = texts_of(body.collected(), "PartNumber");
  for (const std::string_view number : numbers) {
    const auto found = upload->parts.find(static_cast<unsigned>(to_number(number).value_or(0)));
    if (found == upload->parts.end()) return error_response(400, "InvalidPart", "no such part");
    const Part& part = found->second;
    crc32c = checksum::crc32c_combine(crc32c, part.crc32c, part.size);
    checked = checked && part.checked;
    size += part.size;
  }
  if (numbers.empty()) return error_response(400, "MalformedXML", "no parts");
  // Of the whole object. A composite one ends in the number of parts and cannot be combined.
  const std::string claimed = body.claimed_crc32c();
  const bool whole = !claimed.empty() && claimed.find('-') == std::string::npos;
  if (whole && checked && claimed != checksum_text(crc32c, 4)) {
    ++statistics_.bodies_damaged;
    return error_response(400, "BadDigest", "the checksum of the whole object does not match");
  }
  const Object& object = store_.put(call.path, size, numbers.size());
  store_.end_upload(call.upload);
  std::string content = element("Location", '/' + call.path) + element("Bucket", call.bucket) +
                        element("Key", call.key) + element("ETag", '"' + object.etag + '"');
  if (whole) {
    content += element("ChecksumCRC32C", claimed) + element("ChecksumType", "FULL_OBJECT");
  }
  return document("CompleteMultipartUploadResult", content);
}

Response S3::get_object(const Call& call) {
  const bool head = call.operation == Operation::kHeadObject;
  const auto object = store_.find(call.path);
  if (!object) {
    return head ? empty(404, {}, true) : error_response(404, "NoSuchKey", "no such object");
  }
  Range range{0, object->size};
  Response response;
  response.head = head;
  if (!call.range.empty()) {
    const auto asked = parse_range(call.range, object->size);
    if (!asked) return error_response(416, "InvalidRange", "nothing is there");
    range = *asked;
    response.status = 206;
    response.headers = header("Content-Range", "bytes " + std::to_string(range.start) + '-' +
                                                   std::to_string(range.start + range.count - 1) +
                                                   '/' + std::to_string(object->size));
  }
  response.headers += header("ETag", '"' + object->etag + '"');
  response.headers += header("Last-Modified", http_date(object->modified));
  response.headers += "Accept-Ranges: bytes\r\nContent-Type: binary/octet-stream\r\n";
  // As S3: a range has no checksum of its own, and the object's says nothing about it.
  if (call.wants_checksum && range.count == object->size) {
    const Content::Checksums sums = content_.checksums(object->size);
    response.headers += header("x-amz-checksum-crc32c", checksum_text(sums.crc32c, 4));
    response.headers += "x-amz-checksum-type: FULL_OBJECT\r\n";
    if (head) {
      // For clients of the benchmark that check with what they have.
      response.headers += header("x-bench-crc32", std::to_string(sums.crc32));
    }
  }
  response.content_offset = range.start;
  response.content_count = range.count;
  if (!head) statistics_.content_sent += range.count;
  return response;
}

Response S3::list_objects(const Call& call) {
  const std::string start = call.bucket + '/' + call.prefix;
  std::string items;
  std::string last;
  std::size_t count = 0;
  bool truncated = false;
  std::string common;  // the prefix that the last key was summed up in
  for (auto at = store_.objects().lower_bound(start); at != store_.objects().end(); ++at) {
    if (!at->first.starts_with(start)) break;
    const std::string key = at->first.substr(call.bucket.size() + 1);
    if (!call.after.empty() && key <= call.after) continue;
    if (!common.empty() && key.starts_with(common)) {
      last = key;
      continue;
    }
    if (count == kPageOfKeys) {
      truncated = true;
      break;
    }
    ++count;
    last = key;
    const auto cut =
        call.delimiter.empty() ? std::string::npos : key.find(call.delimiter, call.prefix.size());
    if (cut != std::string::npos) {
      common = key.substr(0, cut + call.delimiter.size());
      items += "<CommonPrefixes>" + element("Prefix", common) + "</CommonPrefixes>";
      continue;
    }
    items += "<Contents>" + element("Key", key) +
             element("LastModified", iso_date(at->second.modified)) +
             element("ETag", '"' + at->second.etag + '"') +
             element("Size", std::to_string(at->second.size)) +
             "<StorageClass>STANDARD</StorageClass></Contents>";
  }
  std::string content = element("Name", call.bucket) + element("Prefix", call.prefix) +
                        element("KeyCount", std::to_string(count)) +
                        element("MaxKeys", std::to_string(kPageOfKeys)) +
                        element("IsTruncated", truncated ? "true" : "false");
  if (truncated) content += element("NextContinuationToken", last);
  return document("ListBucketResult", content + items);
}

Response S3::delete_objects(const Call& call, const Body& body) {
  std::string deleted;
  for (const std::string_view key : texts_of(body.collected(), "Key")) {
    store_.remove(call.bucket + '/' + std::string(key));
    deleted.append("<Deleted><Key>").append(key).append("</Key></Deleted>");
  }
  return document("DeleteResult", deleted);
}

std::string S3::statistics_document() const {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  std::string out = "{\"requests\": {";
  bool first = true;
  for (std::size_t i = 0; i < kOperations; ++i) {
    if (statistics_.requests[i] == 0) continue;
    out.append(first ? "\"" : ", \"").append(kNames[i]).append("\": ");
    out.append(std::to_string(statistics_.requests[i]));
    first = false;
  }
  out += '}';
  const std::pair<const char*, std::uint64_t> counts[] = {
      {"connections", statistics_.connections},
      {"content_received", statistics_.content_received},
      {"content_sent", statistics_.content_sent},
      {"bodies_verified", statistics_.bodies_verified},
      {"bodies_without_checksum", statistics_.bodies_without_checksum},
      {"bodies_damaged", statistics_.bodies_damaged},
  };
  for (const auto& [name, value] : counts) {
    out.append(", \"").append(name).append("\": ").append(std::to_string(value));
  }
  out += ", \"cpu_seconds\": " + std::to_string(seconds(usage.ru_utime) + seconds(usage.ru_stime));
  return out + "}\n";
}

}  // namespace kumo::bench
