#pragma once

#include <aws/http/connection.h>
#include <aws/io/stream.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "http/frame.hpp"
#include "s3/request.hpp"

namespace kumo::s3 {

// A part of a file as a request body: read, when the connection can take more, right into the
// message that is sent. Without a frame that is the second time that the part is read: the first
// was for its checksum. Twice through memory that stays in the processor's cache costs less than
// once through a buffer as large as the part, and the file's pages are in the kernel's cache the
// second time (docs/performance.md). Should the file have changed in between, the service refuses
// the part.
//
// An aws_input_stream, counted by references.
class FileStream {
 public:
  // The caller owns the one reference. `file`, `frame` (what goes around the part, if anything
  // does) and `error` outlive the stream; what goes wrong is written to `error`.
  static FileStream* make(const FileBody& file, http::Frame* frame, std::string& error);

  // Before the request is made: the connection it goes to.
  void attach(aws_http_connection* connection) noexcept { connection_ = connection; }
  [[nodiscard]] aws_input_stream* stream() noexcept { return &base_; }
  // Whether the connection took all of it.
  [[nodiscard]] bool taken() const noexcept { return position_ == total(); }

  FileStream(const FileStream&) = delete;
  FileStream& operator=(const FileStream&) = delete;

 private:
  FileStream(const FileBody& file, http::Frame* frame, std::string& error);
  ~FileStream() = default;

  static FileStream& self(aws_input_stream* stream) {
    return *static_cast<FileStream*>(stream->impl);
  }
  static int seek(aws_input_stream* stream, std::int64_t offset, aws_stream_seek_basis basis);
  static int read(aws_input_stream* stream, aws_byte_buf* into);
  static int status(aws_input_stream* stream, aws_stream_status* status);
  static int length(aws_input_stream* stream, std::int64_t* length);

  [[nodiscard]] std::size_t total() const noexcept;
  // Reads what comes next, and how much that was.
  std::size_t next(std::uint8_t* into, std::size_t capacity);

  static const aws_input_stream_vtable kVtable;

  aws_input_stream base_{};
  const FileBody& file_;
  http::Frame* frame_;
  std::string& error_;
  std::size_t position_ = 0;  // in part and frame together
  aws_http_connection* connection_ = nullptr;
};

// The part's CRC32C, for which it is read once. `stopped` is asked between blocks. Throws
// crt::Error where reading fails, the file ends before the part, or it was stopped.
std::uint32_t crc32c_of(const FileBody& file, const std::function<bool()>& stopped);

}  // namespace kumo::s3
