#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "body.hpp"
#include "content.hpp"
#include "http.hpp"
#include "store.hpp"

namespace kumo::bench {

enum class Operation {
  kStatistics,
  kListBuckets,
  kCreateBucket,
  kHeadBucket,
  kDeleteBucket,
  kGetBucketLocation,
  kGetBucketVersioning,
  kListObjects,
  kListUploads,
  kDeleteObjects,
  kPutObject,
  kCopyObject,
  kGetObject,
  kHeadObject,
  kDeleteObject,
  kCreateUpload,
  kUploadPart,
  kCompleteUpload,
  kAbortUpload,
  kUnknown,
};
constexpr std::size_t kOperations = static_cast<std::size_t>(Operation::kUnknown) + 1;

// What is remembered of a request while its body arrives.
struct Call {
  Operation operation = Operation::kUnknown;
  std::string bucket;
  std::string key;
  std::string path;  // bucket/key
  std::string upload;
  unsigned part = 0;
  std::string range;
  std::string prefix;
  std::string delimiter;
  std::string after;
  bool wants_checksum = false;
};

struct Response {
  int status = 200;
  std::string headers;  // whole lines
  std::string body;
  // Instead of a body: this much of an object's content.
  std::uint64_t content_offset = 0;
  std::uint64_t content_count = 0;
  // An answer to HEAD: a length without a body.
  bool head = false;
};

struct Statistics {
  std::array<std::uint64_t, kOperations> requests{};
  std::uint64_t connections = 0;
  std::uint64_t content_received = 0;
  std::uint64_t content_sent = 0;
  std::uint64_t bodies_verified = 0;
  std::uint64_t bodies_without_checksum = 0;
  std::uint64_t bodies_damaged = 0;
};

// Answers requests. Whoever asks may: signatures are not looked at.
class S3 {
 public:
  // `check`: compare received content with the checksums that come with it.
  S3(Content& content, bool check) : content_(content), check_(check) {}

  // Reads a request's head; returns what its body is for.
  Body::Use begin(const Request& request, Call& call);
  Response finish(const Call& call, const Body& body);

  Statistics& statistics() noexcept { return statistics_; }

 private:
  Response put_object(const Call& call, const Body& body);
  Response upload_part(const Call& call, const Body& body);
  Response complete_upload(const Call& call, const Body& body);
  Response get_object(const Call& call);
  Response list_objects(const Call& call);
  Response delete_objects(const Call& call, const Body& body);
  [[nodiscard]] std::string statistics_document() const;
  // False: the content is not what its checksum says. Counts what was found.
  bool verified(const Body& body);

  Content& content_;
  bool check_;
  Store store_;
  Statistics statistics_;
};

[[nodiscard]] Response error_response(int status, std::string_view code, std::string_view message);
[[nodiscard]] std::string_view reason_of(int status) noexcept;

}  // namespace kumo::bench
