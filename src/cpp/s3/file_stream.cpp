#include "s3/file_stream.hpp"

#include <aws/s3/s3.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "async/buffer.hpp"
#include "checksum/crc32c.hpp"
#include "crt/error.hpp"
#include "http/lane.hpp"

namespace kumo::s3 {
namespace {

// Small enough to stay in L2, whose reuse is the point.
constexpr std::size_t kReadBlock = 262'144;

// Reads into `into` what one call gives, at most `size` bytes; throws where there is nothing.
std::size_t read_some(const FileBody& file, std::size_t position, std::uint8_t* into,
                      std::size_t size) {
  for (;;) {
    const ssize_t got =
        ::pread(file.fd.get(), into, size, static_cast<off_t>(file.offset + position));
    if (got > 0) return static_cast<std::size_t>(got);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw crt::Error(AWS_ERROR_FILE_READ_FAILURE,
                       "reading the file: " + std::generic_category().message(errno));
    }
    throw crt::Error(AWS_ERROR_FILE_READ_FAILURE,
                     "the file became shorter while it was being sent: it ends at byte " +
                         std::to_string(file.offset + position));
  }
}

}  // namespace

const aws_input_stream_vtable FileStream::kVtable = {
    .seek = seek,
    .read = read,
    .get_status = status,
    .get_length = length,
    .acquire = nullptr,
    .release = nullptr,
};

FileStream* FileStream::make(const FileBody& file, http::Frame* frame, std::string& error) {
  return new FileStream(file, frame, error);
}

FileStream::FileStream(const FileBody& file, http::Frame* frame, std::string& error)
    : file_(file), frame_(frame), error_(error) {
  base_.impl = this;
  base_.vtable = &kVtable;
  aws_ref_count_init(&base_.ref_count, this,
                     [](void* object) { delete static_cast<FileStream*>(object); });
}

std::size_t FileStream::total() const noexcept {
  return frame_ != nullptr ? frame_->total() : file_.size;
}

int FileStream::seek(aws_input_stream* stream, std::int64_t offset, aws_stream_seek_basis basis) {
  FileStream& body = self(stream);
  const auto size = static_cast<std::int64_t>(body.total());
  const std::int64_t target = basis == AWS_SSB_BEGIN ? offset : size + offset;
  // A frame's checksum is of what was read in order.
  const bool possible =
      body.frame_ == nullptr || target == static_cast<std::int64_t>(body.position_);
  if (target < 0 || target > size || !possible) {
    return aws_raise_error(AWS_IO_STREAM_INVALID_SEEK_POSITION);
  }
  body.position_ = static_cast<std::size_t>(target);
  return AWS_OP_SUCCESS;
}

int FileStream::read(aws_input_stream* stream, aws_byte_buf* into) {
  FileStream& body = self(stream);
  // The lane saves the clearing of what was sent.
  if (body.position_ == 0 && body.connection_ != nullptr) (void)http::Lane::of(body.connection_);
  try {
    while (into->len < into->capacity && body.position_ < body.total()) {
      const std::size_t got = body.next(into->buffer + into->len, into->capacity - into->len);
      into->len += got;
      body.position_ += got;
    }
    return AWS_OP_SUCCESS;
  } catch (const crt::Error& error) {
    body.error_ = error.what();
    return aws_raise_error(error.code());
  }
}

std::size_t FileStream::next(std::uint8_t* into, std::size_t capacity) {
  if (frame_ == nullptr) {
    return read_some(file_, position_, into, std::min(capacity, file_.size - position_));
  }
  if (const std::size_t copied = frame_->copy(position_, into, capacity); copied > 0) return copied;
  const std::size_t offset = position_ - frame_->before();
  const std::size_t got = read_some(file_, offset, into, std::min(capacity, file_.size - offset));
  frame_->pass(into, got);
  return got;
}

int FileStream::status(aws_input_stream* stream, aws_stream_status* status) {
  const FileStream& body = self(stream);
  status->is_end_of_stream = body.position_ == body.total();
  status->is_valid = true;
  return AWS_OP_SUCCESS;
}

int FileStream::length(aws_input_stream* stream, std::int64_t* length) {
  *length = static_cast<std::int64_t>(self(stream).total());
  return AWS_OP_SUCCESS;
}

std::uint32_t crc32c_of(const FileBody& file, const std::function<bool()>& stopped) {
  thread_local const async::AlignedBuffer buffer(kReadBlock);
  std::uint32_t value = 0;
  std::size_t position = 0;
  while (position < file.size) {
    if (stopped()) throw crt::Error(AWS_ERROR_S3_CANCELED, "reading the file");
    const std::size_t got =
        read_some(file, position, buffer.data(), std::min(kReadBlock, file.size - position));
    value = checksum::crc32c(buffer.data(), got, value);
    position += got;
  }
  return value;
}

}  // namespace kumo::s3
