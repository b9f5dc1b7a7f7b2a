#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "async/buffer.hpp"
#include "crt/file_descriptor.hpp"

namespace kumo::s3 {

using Headers = std::vector<std::pair<std::string, std::string>>;

// Where a request's body comes from.
struct NoBody {};
struct MemoryBody {  // borrowed: the caller keeps it until the operation is over
  const std::uint8_t* data;
  std::size_t size;
};
struct FileBody {  // read with pread
  crt::FileDescriptor fd;
  std::uint64_t offset;
  std::size_t size;
};
using Body = std::variant<NoBody, MemoryBody, FileBody>;

// Where a response's body goes. An error response's body is always collected instead.
struct CollectSink {  // into memory of the operation's own
  std::uint64_t limit = UINT64_MAX;
};
struct DiscardSink {};  // counted and checksummed only
struct MemorySink {     // borrowed: the caller keeps it until the operation is over
  std::uint8_t* data;
  std::size_t capacity;
};
struct FileSink {  // written with pwrite
  crt::FileDescriptor fd;
  std::uint64_t offset;
};
using Sink = std::variant<CollectSink, DiscardSink, MemorySink, FileSink>;

// One call to S3. Host is added as a header by whoever builds it.
struct Request {
  std::string operation;  // S3 operation name ("PutObject"), for metrics
  std::string method;
  std::string endpoint;  // scheme://host[:port], where the connection goes
  std::string target;    // encoded path and query
  Headers headers;
  Body body;
  bool send_crc32c = false;      // adds x-amz-checksum-crc32c over the body
  bool crc32c_trailing = false;  // behind the body, where the body is not empty; else before it
  Sink sink;
  bool crc32c_of_response = false;
  // Where to cut a body that is at least twice as long (the rest is fetched in ranges beside each
  // other), at the price of its connection; 0: nowhere.
  std::uint64_t stop_after = 0;
  // Whether credentials that are about to expire will do where no others can be had.
  bool any_credentials = false;
};

// What came of it. `error_code` is a CRT error code: 0 where there was an answer, whatever its
// `status`.
struct Response {
  int error_code = 0;
  std::string error_name;
  std::string error_text;
  int status = 0;
  Headers headers;
  async::AlignedBuffer body;  // with CollectSink; as large as announced, also if truncated
  std::size_t body_size = 0;
  std::string error_body;
  std::uint64_t received = 0;         // bytes of the body given to the sink
  bool truncated = false;             // by stop_after
  std::uint64_t signed_with = 0;      // generation of the credentials
  std::uint32_t crc32c_sent = 0;      // with send_crc32c
  std::uint32_t crc32c_received = 0;  // with crc32c_of_response
};

}  // namespace kumo::s3
