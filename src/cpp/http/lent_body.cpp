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

LentBody* LentBody::make(const std::uint8_t* data, std::size_t size, Frame* frame) {
  return new LentBody(data, size, frame);
}

LentBody::LentBody(const std::uint8_t* data, std::size_t size, Frame* frame)
    : data_(data), size_(size), frame_(frame) {
  base_.impl = this;
  base_.vtable = &kVtable;
  aws_ref_count_init(&base_.ref_count, this,
                     [](void* object) { delete static_cast<LentBody*>(object); });
}

std::size_t LentBody::total() const noexcept { return frame_ != nullptr ? frame_->total() : size_; }

int LentBody::seek(aws_input_stream* stream, std::int64_t offset, aws_stream_seek_basis basis) {
  LentBody& body = self(stream);
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

int LentBody::read(aws_input_stream* stream, aws_byte_buf* into) {
  LentBody& body = self(stream);
  bool lent = false;  // what is lent ends its message
  while (!lent && into->len < into->capacity && body.position_ < body.total()) {
    std::uint8_t* place = into->buffer + into->len;
    const std::size_t room = into->capacity - into->len;
    std::size_t given = body.frame_ != nullptr ? body.frame_->copy(body.position_, place, room) : 0;
    if (given == 0) {
      const std::size_t offset =
          body.position_ - (body.frame_ != nullptr ? body.frame_->before() : 0);
      given = std::min(room, body.size_ - offset);
      lent = body.give(offset, place, given);
    }
    into->len += given;
    body.position_ += given;
  }
  return AWS_OP_SUCCESS;
}

bool LentBody::give(std::size_t offset, std::uint8_t* place, std::size_t size) {
  const std::uint8_t* from = data_ + offset;
  if (frame_ != nullptr) frame_->pass(from, size);
  if (size >= kCopyBelow && connection_ != nullptr) {
    auto lender = lender_.lock();
    Lane* lane = lender != nullptr ? Lane::of(connection_) : nullptr;
    if (lane != nullptr) {
      lane->lend(place, from, size, std::move(lender));
      return true;
    }
  }
  std::memcpy(place, from, size);
  return false;
}

int LentBody::status(aws_input_stream* stream, aws_stream_status* status) {
  const LentBody& body = self(stream);
  status->is_end_of_stream = body.position_ == body.total();
  status->is_valid = true;
  return AWS_OP_SUCCESS;
}

int LentBody::length(aws_input_stream* stream, std::int64_t* length) {
  *length = static_cast<std::int64_t>(self(stream).total());
  return AWS_OP_SUCCESS;
}

}  // namespace kumo::http
