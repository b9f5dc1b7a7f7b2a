#include "http/lent_body.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kumo::http {
namespace {

// Less than this is cheaper to copy than to send in a message of its own.
constexpr std::size_t kCopyBelow = 32'768;

}  // namespace

const aws_input_stream_vtable LentBody::kVtable = {
    .seek = seek,
    .read = read,
    .get_status = status,
    .get_length = length,
    .acquire = nullptr,
    .release = nullptr,
};

LentBody* LentBody::make(const std::uint8_t* data, std::size_t size) {
  return new LentBody(data, size);
}

LentBody::LentBody(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
  base_.impl = this;
  base_.vtable = &kVtable;
  aws_ref_count_init(&base_.ref_count, this,
                     [](void* object) { delete static_cast<LentBody*>(object); });
}

int LentBody::seek(aws_input_stream* stream, std::int64_t offset, aws_stream_seek_basis basis) {
  LentBody& body = self(stream);
  const auto size = static_cast<std::int64_t>(body.size_);
  const std::int64_t target = basis == AWS_SSB_BEGIN ? offset : size + offset;
  if (target < 0 || target > size) return aws_raise_error(AWS_IO_STREAM_INVALID_SEEK_POSITION);
  body.position_ = static_cast<std::size_t>(target);
  return AWS_OP_SUCCESS;
}

int LentBody::read(aws_input_stream* stream, aws_byte_buf* into) {
  LentBody& body = self(stream);
  const std::size_t size = std::min(into->capacity - into->len, body.size_ - body.position_);
  if (size == 0) return AWS_OP_SUCCESS;
  const std::uint8_t* from = body.data_ + body.position_;
  std::uint8_t* place = into->buffer + into->len;
  Lane* lane = nullptr;
  std::shared_ptr<Lender> lender;
  if (body.size_ >= kCopyBelow && body.connection_ != nullptr) {
    lender = body.lender_.lock();
    if (lender != nullptr) lane = Lane::of(body.connection_);
  }
  if (lane != nullptr) {
    lane->lend(place, from, size, std::move(lender));
  } else {
    std::memcpy(place, from, size);
  }
  into->len += size;
  body.position_ += size;
  return AWS_OP_SUCCESS;
}

int LentBody::status(aws_input_stream* stream, aws_stream_status* status) {
  const LentBody& body = self(stream);
  status->is_end_of_stream = body.position_ == body.size_;
  status->is_valid = true;
  return AWS_OP_SUCCESS;
}

int LentBody::length(aws_input_stream* stream, std::int64_t* length) {
  *length = static_cast<std::int64_t>(self(stream).size_);
  return AWS_OP_SUCCESS;
}

}  // namespace kumo::http
